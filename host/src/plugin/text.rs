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
