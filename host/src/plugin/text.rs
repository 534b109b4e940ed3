//! Text from guests, made fit for logs and error messages.

/// `text` without control characters, cut to about `bytes_max` bytes.
///
/// A guest that could write a newline or an escape sequence could forge log records
/// or take over an operator's terminal.
pub(super) fn tidy(text: &str, bytes_max: usize) -> String {
    let mut tidied = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        if tidied.len() + c.len_utf8() > bytes_max {
            tidied.push('…');
            break;
        }
        if c.is_control() || is_format(c) {
            tidied.extend(c.escape_default());
        } else {
            tidied.push(c);
        }
    }
    tidied
}

/// Characters that change how the text around them is shown: line separators and
/// the marks that reverse its direction.
fn is_format(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What `run` logs on this thread, one record a line.
#[cfg(test)]
pub(super) fn logged(run: impl FnOnce()) -> String {
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(bytes).expect("text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(tidy("a\nb\u{1b}[31mc\r\0", 100), "a\\nb\\u{1b}[31mc\\r\\u{0}");
        assert_eq!(tidy("\u{202e}txt.exe", 100), "\\u{202e}txt.exe");
        assert_eq!(tidy("Zürich 猫", 100), "Zürich 猫");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(tidy("ééé", 5), "éé…");
        assert_eq!(tidy("abc", 3), "abc");
    }
}
