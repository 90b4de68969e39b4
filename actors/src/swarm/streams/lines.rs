//! Cutting a stream's bytes into values, one per line, in a buffer that never outgrows one value.

use std::ops::Range;

/// The buffer of a stream begins with this and returns to at most [`KEPT_BYTES`] when it is empty.
const FIRST_BYTES: usize = 1024;

/// What an idle stream may keep: a heartbeat fits, and thousands of streams idle.
const KEPT_BYTES: usize = 4 * 1024;

/// Blank lines between two values; a peer that sends more has nothing to say and costs time.
const BLANKS_MAX: u32 = 64;

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    TooLong,
    Blank,
}

#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Of the value that is being received.
    start: usize,
    /// No line feed before this.
    scanned: usize,
    /// Bytes after this are room.
    end: usize,
    blanks: u32,
    value_bytes_max: usize,
}

impl Lines {
    pub(super) const fn new(value_bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, scanned: 0, end: 0, blanks: 0, value_bytes_max }
    }

    /// Whether a part of a value is here.
    pub(super) const fn is_partial(&self) -> bool {
        self.start < self.end
    }

    /// Room to read into. Never empty after [`next`](Self::next) found nothing.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.scanned, self.end, self.start) = (self.scanned - self.start, self.end - self.start, 0);
        }
        if self.end == 0 && self.buffer.len() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        if self.end == self.buffer.len() {
            // A value's line feed has its place too.
            let bytes = (self.end * 2).max(FIRST_BYTES).min(self.value_bytes_max + 1);
            self.buffer.reserve_exact(bytes.saturating_sub(self.end));
            self.buffer.resize(bytes, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were read into the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = self.buffer.len().min(self.end + count);
    }

    /// The place of the next whole value, valid until room is asked for.
    pub(super) fn next(&mut self) -> Result<Option<Range<usize>>, Bad> {
        loop {
            let Some(length) = self.buffer[self.scanned..self.end].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.end;
                let is_full = self.end - self.start > self.value_bytes_max;
                return if is_full { Err(Bad::TooLong) } else { Ok(None) };
            };
            let value = self.start..self.scanned + length;
            self.start = value.end + 1;
            self.scanned = self.start;
            if !self.buffer[value.clone()].iter().all(u8::is_ascii_whitespace) {
                self.blanks = 0;
                return Ok(Some(value));
            }
            self.blanks += 1;
            if self.blanks > BLANKS_MAX {
                return Err(Bad::Blank);
            }
        }
    }

    pub(super) fn bytes(&self, value: Range<usize>) -> &[u8] {
        &self.buffer[value]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds in pieces of `piece` bytes and takes out all that is there after each.
    fn cut(input: &[u8], piece: usize, value_bytes_max: usize) -> (Vec<Vec<u8>>, Result<bool, Bad>) {
        let mut lines = Lines::new(value_bytes_max);
        let mut values = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let room = lines.room();
            let count = room.len().min(piece).min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            lines.filled(count);
            assert!(lines.buffer.len() <= (value_bytes_max + 1).max(1), "the buffer is bounded");
            loop {
                match lines.next() {
                    Ok(Some(value)) => values.push(lines.bytes(value).to_vec()),
                    Ok(None) => break,
                    Err(bad) => return (values, Err(bad)),
                }
            }
        }
        (values, Ok(lines.is_partial()))
    }

    #[test]
    fn a_value_at_the_limit_passes_and_one_byte_more_does_not() {
        for piece in [1, 7, 1000] {
            let at = [vec![b'x'; 20], vec![b'\n']].concat();
            assert_eq!(cut(&at, piece, 20), (vec![vec![b'x'; 20]], Ok(false)));
            let past = [vec![b'x'; 21], vec![b'\n']].concat();
            assert_eq!(cut(&past, piece, 20), (vec![], Err(Bad::TooLong)));
        }
    }

    #[test]
    fn g10_what_came_behind_a_value_is_not_lost() {
        assert_eq!(cut(b"one\ntwo\nthr", 1000, 64), (vec![b"one".to_vec(), b"two".to_vec()], Ok(true)));
    }

    #[test]
    fn blank_lines_are_skipped_up_to_a_bound() {
        let blanks = |count: u32| [vec![b'\n'; count as usize], b"x\n".to_vec()].concat();
        assert_eq!(cut(&blanks(BLANKS_MAX), 9, 64), (vec![b"x".to_vec()], Ok(false)));
        assert_eq!(cut(&blanks(BLANKS_MAX + 1), 9, 64), (vec![], Err(Bad::Blank)));
        assert_eq!(cut(b" \r\n\t\nx\n", 9, 64), (vec![b"x".to_vec()], Ok(false)));
    }

    #[test]
    fn an_idle_buffer_returns_to_what_it_may_keep() {
        let mut lines = Lines::new(64 * 1024);
        let mut fed = 0;
        while fed < 50_000 {
            let count = lines.room().len();
            lines.room().fill(b'x');
            lines.filled(count);
            assert_eq!(lines.next(), Ok(None));
            fed += count;
        }
        lines.room()[0] = b'\n';
        lines.filled(1);
        assert_eq!(lines.next(), Ok(Some(0..fed)));
        assert!(lines.room().len() <= KEPT_BYTES && lines.buffer.capacity() <= KEPT_BYTES);
    }

    proptest! {
        #[test]
        fn values_come_out_as_they_went_in_however_they_were_cut(
            values in proptest::collection::vec("[a-z]{1,40}", 0..20), piece in 1_usize..100,
        ) {
            let input: String = values.iter().map(|value| format!("{value}\n")).collect();
            let expected: Vec<_> = values.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(cut(input.as_bytes(), piece, 40), (expected, Ok(false)));
        }
    }
}
