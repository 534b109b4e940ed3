//! What comes in over a link: from the bytes of a socket to frames.

use std::sync::Arc;

use super::{Closed, Decoder, Frame, Records};

/// Bytes that there is room for before each read.
const ROOM: usize = 64 << 10;

/// One direction of a link, as the end that reads it sees it.
pub struct Incoming {
    records: Arc<Records>,
    /// Sealed bytes that are not yet a whole record.
    received: Vec<u8>,
    /// Records that were opened.
    count: u64,
    decoder: Decoder,
}

impl Incoming {
    /// Nothing yet.
    pub fn new(records: Arc<Records>) -> Self {
        let received = Vec::with_capacity(ROOM);
        Self { records, received, count: 0, decoder: Decoder::default() }
    }

    /// Where the next bytes from the socket go.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.received.reserve(ROOM);
        &mut self.received
    }

    /// Opens what has arrived. To be called after each read, and followed by
    /// [`Incoming::take`] until that has nothing more.
    ///
    /// # Errors
    /// A record is not the one that the other end sent.
    pub fn open(&mut self) -> Result<(), Closed> {
        let mut at = 0;
        loop {
            let plain = &mut self.decoder.stream;
            match self.records.open(&self.received[at..], &mut self.count, plain)? {
                0 => break,
                taken => at += taken,
            }
        }
        self.received.drain(..at);
        Ok(())
    }

    /// The next frame, with the number of its question, if all of it has arrived.
    ///
    /// # Errors
    /// What has arrived is no frame.
    pub fn take(&mut self) -> Result<Option<(u32, Frame)>, super::Broken> {
        self.decoder.take()
    }
}
