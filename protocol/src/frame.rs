//! Values on a stream: JSON, each followed by one line feed.

use serde::Serialize;
use thiserror::Error;

/// Bytes that stay allocated for the beginning of a value, though it is shorter: what a large one took is given back.
const IDLE_BYTES_MAX: usize = 2 * 1024;

/// Why a stream of values cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A value is longer than its protocol allows.
    #[error("got a value of more than {max} bytes")]
    TooLong {
        /// Bytes allowed, the line feed not counted.
        max: usize,
    },
    /// A value of our own cannot be written as one line.
    #[error("a value cannot be written as one line: {cause}")]
    Unwritable {
        /// Why not.
        cause: String,
    },
}

/// Cuts a stream of bytes, however it is chopped, into values.
///
/// It holds what it was fed and not asked for, and of an unfinished value never more than the limit.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the values that were not taken yet begin.
    taken: usize,
    /// Where the unfinished value begins; before it stand whole lines only.
    unfinished: usize,
    bytes_max: usize,
    is_over: bool,
}

impl Lines {
    /// A splitter of values of at most `bytes_max` bytes each, their line feeds not counted.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), taken: 0, unfinished: 0, bytes_max, is_over: false }
    }

    /// Takes the next bytes of the stream. What goes beyond the limit is not kept: [`Lines::next`] tells it.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.forget_taken();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_over {
                return;
            }
            self.feed_part(part);
        }
    }

    fn feed_part(&mut self, part: &[u8]) {
        let ends = part.ends_with(b"\n");
        let got = self.buffer.len() - self.unfinished + part.len() - usize::from(ends);
        if got > self.bytes_max {
            self.is_over = true;
            self.buffer.truncate(self.unfinished);
            return;
        }
        self.buffer.extend_from_slice(part);
        if ends {
            self.unfinished = self.buffer.len();
        }
    }

    fn forget_taken(&mut self) {
        self.unfinished -= self.taken;
        let taken = std::mem::take(&mut self.taken);
        // Most streams wait most of the time: each connected node has one that waits for its next beat.
        if taken == self.buffer.len() {
            self.buffer = Vec::new();
            return;
        }
        self.buffer.drain(..taken);
        if self.buffer.len() <= IDLE_BYTES_MAX {
            self.buffer.shrink_to(IDLE_BYTES_MAX);
        }
    }

    /// The next whole value without its line feed; nothing when more must be fed first.
    ///
    /// # Errors
    /// When the values before were all taken and the next one is longer than the limit; from then on always.
    #[expect(
        clippy::should_implement_trait,
        reason = "a value borrows from the splitter, which an iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        while self.taken < self.unfinished {
            let from = self.taken;
            let line = self.buffer[from..self.unfinished].split(|byte| *byte == b'\n').next().unwrap_or_default();
            let to = from + line.len();
            self.taken = to + 1;
            if !is_blank(&self.buffer[from..to]) {
                return Ok(Some(&self.buffer[from..to]));
            }
        }
        self.forget_taken();
        if self.is_over { Err(FrameError::TooLong { max: self.bytes_max }) } else { Ok(None) }
    }

    /// Something is here of the next value, or all of it. Blank lines are nothing of a value, and are let go.
    pub fn has_begun(&mut self) -> bool {
        while self.taken < self.unfinished {
            let lines = &self.buffer[self.taken..self.unfinished];
            let line = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
            if !is_blank(line) {
                return true;
            }
            self.taken += line.len() + 1;
        }
        self.forget_taken();
        self.is_over || self.buffer.len() > self.unfinished
    }

    /// Nothing is left of a value: a stream may end here.
    #[must_use]
    pub fn is_between_values(&self) -> bool {
        !self.is_over && self.taken == self.buffer.len()
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.buffer.capacity()
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// A value as one line, its line feed included.
///
/// # Errors
/// When the value has more than `bytes_max` bytes, or has a line feed in an embedded text that was never checked.
pub fn line<T: Serialize>(value: &T, bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut line = serde_json::to_vec(value).map_err(|error| FrameError::Unwritable { cause: error.to_string() })?;
    if line.len() > bytes_max {
        return Err(FrameError::TooLong { max: bytes_max });
    }
    if line.contains(&b'\n') {
        return Err(FrameError::Unwritable { cause: "it has a line feed within".to_owned() });
    }
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn drain(lines: &mut Lines) -> (Vec<String>, bool) {
        let mut values = Vec::new();
        loop {
            match lines.next() {
                Ok(Some(value)) => values.push(String::from_utf8(value.to_vec()).unwrap()),
                Ok(None) => return (values, false),
                Err(_) => return (values, true),
            }
        }
    }

    fn all_at_once(stream: &[u8], bytes_max: usize) -> (Vec<String>, bool) {
        let mut lines = Lines::new(bytes_max);
        lines.feed(stream);
        drain(&mut lines)
    }

    #[test]
    fn a_value_has_begun_with_its_first_byte_and_blank_lines_are_none() {
        let mut lines = Lines::new(4);
        assert!(!lines.has_begun());
        lines.feed(b" \t\r\n\n");
        assert!(!lines.has_begun() && lines.is_between_values());
        lines.feed(b"\n1");
        assert!(lines.has_begun());
        lines.feed(b"2\n");
        assert!(lines.has_begun());
        assert_eq!(lines.next(), Ok(Some(&b"12"[..])));
        assert!(!lines.has_begun());
        lines.feed(b"12345");
        assert!(lines.has_begun(), "one that is too long has begun, too");
    }

    #[test]
    fn g10_bytes_after_a_value_are_kept_for_the_next() {
        let mut lines = Lines::new(100);
        lines.feed(b"{\"seq\":1}\n{\"se");
        assert_eq!(lines.next(), Ok(Some(&b"{\"seq\":1}"[..])));
        assert_eq!(lines.next(), Ok(None));
        assert!(!lines.is_between_values());
        lines.feed(b"q\":2}\n");
        assert_eq!(lines.next(), Ok(Some(&b"{\"seq\":2}"[..])));
        assert!(lines.is_between_values());
    }

    #[test]
    fn g10_a_value_is_taken_at_its_limit_and_refused_past_it() {
        assert_eq!(all_at_once(b"12345\n", 5), (vec!["12345".to_owned()], false));
        assert_eq!(all_at_once(b"123456\n", 5), (vec![], true));
        assert_eq!(all_at_once(b"12345", 5), (vec![], false));
        assert_eq!(all_at_once(b"123456", 5), (vec![], true));
        assert_eq!(all_at_once(b"1\n123456\n2\n", 5), (vec!["1".to_owned()], true));
    }

    #[test]
    fn g10_an_endless_value_is_never_buffered_beyond_its_limit() {
        let mut lines = Lines::new(1000);
        for _ in 0..10_000 {
            lines.feed(&[b'x'; 64]);
            assert!(lines.bytes_held() <= 2_000, "{}", lines.bytes_held());
        }
        assert_eq!(lines.next(), Err(FrameError::TooLong { max: 1000 }));
        lines.feed(b"\n1\n");
        assert_eq!(lines.next(), Err(FrameError::TooLong { max: 1000 }));
    }

    #[test]
    fn blank_lines_are_skipped() {
        assert_eq!(all_at_once(b"\n\r\n \t\n1\n\n\n2\r\n", 5), (vec!["1".to_owned(), "2\r".to_owned()], false));
    }

    #[test]
    fn the_room_of_a_large_value_is_given_back_and_that_of_the_last_one_whole() {
        let mut lines = Lines::new(64 * 1024);
        lines.feed(b"1\n");
        assert!(lines.next().is_ok_and(|value| value.is_some()));
        assert!(!lines.has_begun());
        assert_eq!(lines.bytes_held(), 0, "whoever waits so needs no more");
        lines.feed(&[&[b'x'; 60_000][..], b"\nbegun"].concat());
        assert!(lines.bytes_held() > IDLE_BYTES_MAX);
        assert_eq!(drain(&mut lines).0.len(), 1);
        assert!((5..=IDLE_BYTES_MAX).contains(&lines.bytes_held()));
        lines.feed(b"\n");
        assert_eq!(drain(&mut lines).0, ["begun"]);
        assert_eq!(lines.bytes_held(), 0);
        lines.feed(b"1\n");
        assert_eq!(drain(&mut lines).0, ["1"]);
    }

    #[test]
    fn a_written_line_is_one_value() {
        assert_eq!(line(&["a\nb"], 8).unwrap(), b"[\"a\\nb\"]\n");
        assert_eq!(line(&["a\nb"], 7), Err(FrameError::TooLong { max: 7 }));
        let raw = RawValue::from_string("[1,\n2]".to_owned()).unwrap();
        assert!(matches!(line(&raw, 100), Err(FrameError::Unwritable { .. })));
    }

    proptest! {
        #[test]
        fn g10_it_does_not_matter_where_a_stream_is_cut(
            stream in "[ab \r\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..8), bytes_max in 0usize..12,
        ) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let mut lines = Lines::new(bytes_max);
            let mut values = Vec::new();
            let mut is_over = false;
            for (index, pair) in cuts.windows(2).enumerate() {
                lines.feed(&stream[pair[0]..pair[1]]);
                // Sometimes nothing is taken between two feeds.
                if index % 2 == 0 {
                    let (more, over) = drain(&mut lines);
                    values.extend(more);
                    is_over |= over;
                }
            }
            let (more, over) = drain(&mut lines);
            values.extend(more);
            prop_assert_eq!((values, is_over | over), all_at_once(stream, bytes_max));
        }

        #[test]
        fn what_is_written_is_taken_again(values in prop::collection::vec(any::<String>(), 0..10)) {
            let stream: Vec<u8> = values.iter().flat_map(|value| line(value, usize::MAX).unwrap()).collect();
            let (lines, _) = all_at_once(&stream, usize::MAX);
            let read: Vec<String> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
