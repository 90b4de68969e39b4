//! JSON from outside: one pass over the text before anything believes it, and its canonical form (RFC 8785).
//!
//! The pass keeps what page `docs/protocol.md` promises of every value: a length, UTF-8, a depth, no key twice in one
//! object (compared as the text that the key means, not as it is escaped), numbers that every language can hold, one
//! value and no raw line feed. No value is built on the way: beside the text it needs the keys of the open objects, and
//! for a small one not even the heap.

use std::{borrow::Cow, ops::Range};

use serde::de::DeserializeOwned;
use thiserror::Error;

/// Arrays and objects within each other. Our deepest message has 5; the rest is room for unknown fields.
pub const DEPTH_MAX: usize = 16;

/// Keys of one object. The largest honest one is a `GetResponse`, which holds at most 64 records.
pub const KEYS_MAX: usize = 256;

/// The largest magnitude of a number: beyond it, readers that hold numbers as doubles would read another one.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Why a text is not taken as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// More bytes than allowed.
    #[error("got {got} bytes, expected at most {max}")]
    TooLong {
        /// Bytes of the text.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not UTF-8.
    #[error("got bytes that are not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// A line feed inside the value: a reader that splits lines would have cut it there.
    #[error("got a raw line feed at byte {at}, expected none within a value")]
    LineFeed {
        /// Its offset.
        at: usize,
    },
    /// Too many arrays and objects within each other.
    #[error("got a value deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep {
        /// Where the level that is too many begins.
        at: usize,
    },
    /// A key appears twice in one object.
    #[error("got a key of one object twice at byte {at}")]
    DuplicateKey {
        /// Where the second one begins.
        at: usize,
    },
    /// An object with too many keys.
    #[error("got an object with more than {KEYS_MAX} keys at byte {at}")]
    TooManyKeys {
        /// Where the key that is too many begins.
        at: usize,
    },
    /// A number beyond ±(2^53 - 1).
    #[error("got a number beyond ±{NUMBER_MAX} at byte {at}")]
    NumberTooLarge {
        /// Where it begins.
        at: usize,
    },
    /// Not the grammar of JSON.
    #[error("malformed at byte {at}, expected {expected}")]
    Malformed {
        /// Offset of the first byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// Proper JSON of another shape than the message.
    #[error("not the message expected: {0}")]
    Shape(String),
}

/// A JSON text that passed the pass. Only [`check`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<'a>(&'a str);

/// Passes over `bytes` once.
///
/// # Errors
/// When the bytes are more than `bytes_max`, or are not one JSON value within the limits of this module.
pub fn check(bytes: &[u8], bytes_max: usize) -> Result<Checked<'_>, JsonError> {
    if bytes.len() > bytes_max {
        return Err(JsonError::TooLong { got: bytes.len(), max: bytes_max });
    }
    let text = str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() })?;
    Scanner::new(text).whole()?;
    Ok(Checked(text))
}

/// Passes over `bytes` and reads them as a message.
///
/// # Errors
/// Those of [`check`], or that the value has another shape than `T`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, JsonError> {
    check(bytes, bytes_max)?.read()
}

impl JsonError {
    /// Of a value that serde does not take. What it says may repeat a stranger's text, so it is escaped and cut.
    pub(crate) fn shape(error: &serde_json::Error) -> Self {
        /// Enough for the field and what was expected of it.
        const CHARS_MAX: usize = 160;
        Self::Shape(error.to_string().chars().take(CHARS_MAX).flat_map(char::escape_debug).collect())
    }
}

impl<'a> Checked<'a> {
    /// The text, as it came.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0
    }

    /// The message that the text means.
    ///
    /// # Errors
    /// When the value has another shape than `T`.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, JsonError> {
        serde_json::from_str(self.0).map_err(|error| JsonError::shape(&error))
    }

    /// The text of the top-level field `name`; nothing when there is none or the value is no object.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'a str> {
        let mut scanner = Scanner::new(self.0);
        scanner.open(b'{').ok()?;
        while let Ok(Some(key)) = scanner.key() {
            let start = scanner.token().ok().map(|_| scanner.at)?;
            scanner.value(1).ok()?;
            if key.text == name {
                return self.0.get(start..scanner.at);
            }
        }
        None
    }

    /// The text in the one form of RFC 8785, without the top-level field `without`.
    ///
    /// Unknown fields are part of it, absent ones are absent.
    #[must_use]
    pub fn canonical(self, without: Option<&str>) -> String {
        let mut canonical = String::with_capacity(self.0.len());
        Scanner::new(self.0)
            .rewrite(&mut canonical, without)
            .expect("a text that passed the check can be walked again");
        canonical
    }
}

/// A key of an object.
struct Key<'a> {
    /// What it means; borrowed where it is written without escapes.
    text: Cow<'a, str>,
    /// Where it begins.
    at: usize,
    /// Of what it means; makes comparing most keys one comparison of two words.
    hash: u64,
}

impl Key<'_> {
    const NONE: Self = Self { text: Cow::Borrowed(""), at: 0, hash: 0 };

    fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

/// The text that a string token means; the token was scanned before.
fn unescape(quoted: &str) -> String {
    serde_json::from_str(quoted).expect("a scanned string can be read")
}

/// A quick mixing of all bytes. Whoever makes two keys meet on purpose gains one comparison of their texts.
fn hash(bytes: &[u8]) -> u64 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chunks = bytes.chunks_exact(8);
    let mut hash = bytes.len() as u64;
    for chunk in &mut chunks {
        hash = (hash.rotate_left(23) ^ word(chunk)).wrapping_mul(MIX);
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    (hash.rotate_left(23) ^ u64::from_le_bytes(last)).wrapping_mul(MIX)
}

/// Eight bytes as one number, the first one lowest.
fn word(chunk: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(chunk);
    u64::from_le_bytes(bytes)
}

/// Keys held without the heap. A heartbeat with its record has fewer in all.
const NEAR: usize = 32;

/// The keys of the objects that are open, innermost last; the first ones without the heap.
struct Keys<'a> {
    near: [Key<'a>; NEAR],
    far: Vec<Key<'a>>,
    /// Of `far`, side by side: in a large object this is what is looked through for each key.
    far_hashes: Vec<u64>,
    count: usize,
}

impl<'a> Keys<'a> {
    fn new() -> Self {
        Self { near: [const { Key::NONE }; NEAR], far: Vec::new(), far_hashes: Vec::new(), count: 0 }
    }

    fn has(&self, key: &Key<'a>, first: usize) -> bool {
        let near = self.near.get(first..self.count.min(NEAR)).unwrap_or(&[]);
        near.iter().any(|held| held.is_same(key)) || self.has_far(key, first.saturating_sub(NEAR))
    }

    fn has_far(&self, key: &Key<'a>, first: usize) -> bool {
        let may_have = self.far_hashes.get(first..).unwrap_or(&[]).contains(&key.hash);
        may_have && self.far.get(first..).unwrap_or(&[]).iter().any(|held| held.is_same(key))
    }

    fn push(&mut self, key: Key<'a>) {
        match self.near.get_mut(self.count) {
            Some(place) => *place = key,
            None => {
                self.far_hashes.push(key.hash);
                self.far.push(key);
            }
        }
        self.count += 1;
    }

    fn truncate(&mut self, count: usize) {
        self.far.truncate(count.saturating_sub(NEAR));
        self.far_hashes.truncate(self.far.len());
        self.count = count;
    }
}

/// A reader of tokens at a place in a text.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    keys: Keys<'a>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, keys: Keys::new() }
    }

    fn malformed<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError::Malformed { at: self.at, expected })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte of the next token, not taken.
    fn token(&mut self) -> Result<u8, JsonError> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\n') => return Err(JsonError::LineFeed { at: self.at }),
                Some(byte) => return Ok(byte),
                None => return self.malformed("more of the value"),
            }
        }
    }

    fn open(&mut self, bracket: u8) -> Result<(), JsonError> {
        if self.token()? != bracket {
            return self.malformed("an object");
        }
        self.at += 1;
        Ok(())
    }

    fn whole(&mut self) -> Result<(), JsonError> {
        self.value(0)?;
        match self.token() {
            Ok(_) => self.malformed("the end after one value"),
            Err(JsonError::Malformed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Walks over one value that stands within `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.token()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number().map(|_| ()),
            _ => self.literal(),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, JsonError> {
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep { at: self.at });
        }
        Ok(depth + 1)
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let inside = self.deeper(depth)?;
        self.at += 1;
        let first = self.keys.count;
        while let Some(key) = self.key()? {
            self.admit(key, first)?;
            self.value(inside)?;
        }
        self.keys.truncate(first);
        Ok(())
    }

    fn admit(&mut self, key: Key<'a>, first: usize) -> Result<(), JsonError> {
        if self.keys.has(&key, first) {
            return Err(JsonError::DuplicateKey { at: key.at });
        }
        if self.keys.count - first >= KEYS_MAX {
            return Err(JsonError::TooManyKeys { at: key.at });
        }
        self.keys.push(key);
        Ok(())
    }

    /// Takes what stands between two members up to the colon, or the end of the object.
    ///
    /// A first member is told from a later one by the byte before: only an opening bracket may precede it.
    fn key(&mut self) -> Result<Option<Key<'a>>, JsonError> {
        let is_first = self.text.as_bytes().get(self.at.wrapping_sub(1)) == Some(&b'{');
        match (self.token()?, is_first) {
            (b'}', _) => {
                self.at += 1;
                return Ok(None);
            }
            (b',', false) => self.at += 1,
            (b'"', true) => {}
            _ => return self.malformed("a comma or the end of the object"),
        }
        if self.token()? != b'"' {
            return self.malformed("a key");
        }
        let at = self.at;
        let (quoted, escaped) = self.string()?;
        if self.token()? != b':' {
            return self.malformed("a colon");
        }
        self.at += 1;
        let text = if escaped { Cow::Owned(unescape(quoted)) } else { Cow::Borrowed(&quoted[1..quoted.len() - 1]) };
        Ok(Some(Key { hash: hash(text.as_bytes()), text, at }))
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let inside = self.deeper(depth)?;
        let mut is_first = true;
        self.at += 1;
        while self.element(is_first)? {
            self.value(inside)?;
            is_first = false;
        }
        Ok(())
    }

    /// Takes what stands before the next element; false at the end of the array.
    fn element(&mut self, is_first: bool) -> Result<bool, JsonError> {
        match (self.token()?, is_first) {
            (b']', _) => {
                self.at += 1;
                Ok(false)
            }
            (b',', false) => {
                self.at += 1;
                Ok(true)
            }
            (_, true) => Ok(true),
            _ => self.malformed("a comma or the end of the array"),
        }
    }

    /// Takes a string token; the bool says that it has escapes.
    fn string(&mut self) -> Result<(&'a str, bool), JsonError> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.skip_plain();
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(b'\n') => return Err(JsonError::LineFeed { at: self.at }),
                Some(byte) if byte < 0x20 => return self.malformed("no control character within a string"),
                Some(_) => self.at += 1,
                None => return self.malformed("the end of a string"),
            }
        }
        self.at += 1;
        Ok((&self.text[start..self.at], escaped))
    }

    /// Skips bytes that are neither a quote, a backslash nor a control character, eight at a time.
    fn skip_plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = ONES << 7;
        let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
        while let Some(chunk) = self.text.as_bytes().get(self.at..self.at + 8) {
            let word = word(chunk);
            let quote = is_zero(word ^ (ONES * b'"' as u64));
            let backslash = is_zero(word ^ (ONES * b'\\' as u64));
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            // A borrow can only mark a byte above the first true one, so the lowest mark is exact.
            let marks = (quote | backslash | control) & HIGH;
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => self.code_point(),
            _ => self.malformed("an escape"),
        }
    }

    /// Takes `uXXXX`, and its second half where the first one is a leading surrogate.
    fn code_point(&mut self) -> Result<(), JsonError> {
        match self.code_unit()? {
            0xdc00..0xe000 => self.malformed("a leading surrogate before a trailing one"),
            0xd800..0xdc00 => {
                if !self.text[self.at..].starts_with("\\u") {
                    return self.malformed("a trailing surrogate");
                }
                self.at += 1;
                match self.code_unit()? {
                    0xdc00..0xe000 => Ok(()),
                    _ => self.malformed("a trailing surrogate"),
                }
            }
            _ => Ok(()),
        }
    }

    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        self.at += 1;
        for _ in 0..4 {
            match self.peek().and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => unit = unit * 16 + digit,
                None => return self.malformed("four hexadecimal digits"),
            }
            self.at += 1;
        }
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn some_digits(&mut self) -> Result<usize, JsonError> {
        match self.digits() {
            0 => self.malformed("a digit"),
            count => Ok(count),
        }
    }

    /// Takes a number token; the bool says that it is written as a whole number.
    fn number(&mut self) -> Result<(&'a str, bool), JsonError> {
        /// Of any number with so many digits before the point, the magnitude is below 10^15.
        const DIGITS_SURE: usize = 15;
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.peek();
        let digits = self.some_digits()?;
        if first == Some(b'0') && digits > 1 {
            return self.malformed("a number without a leading zero");
        }
        let whole = &self.text[start..self.at];
        let mut is_whole = true;
        let mut is_sure = digits <= DIGITS_SURE;
        if self.peek() == Some(b'.') {
            is_whole = false;
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_whole = false;
            is_sure = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        let token = &self.text[start..self.at];
        let fits = is_sure
            || if is_whole {
                whole.trim_start_matches('-').parse::<u64>().is_ok_and(|number| number <= NUMBER_MAX)
            } else {
                token.parse::<f64>().is_ok_and(|number| number.abs() <= NUMBER_MAX as f64)
            };
        if fits { Ok((token, is_whole)) } else { Err(JsonError::NumberTooLarge { at: start }) }
    }

    fn literal(&mut self) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        match ["true", "false", "null"].into_iter().find(|literal| rest.starts_with(literal.as_bytes())) {
            Some(literal) => {
                self.at += literal.len();
                Ok(())
            }
            None => self.malformed("a value"),
        }
    }

    /// Walks over one value and writes its canonical form.
    fn rewrite(&mut self, out: &mut String, without: Option<&str>) -> Result<(), JsonError> {
        match self.token()? {
            b'{' => self.rewrite_object(out, without),
            b'[' => self.rewrite_array(out),
            b'"' => {
                let (quoted, escaped) = self.string()?;
                write_string(out, quoted, escaped);
                Ok(())
            }
            b'-' | b'0'..=b'9' => {
                let (token, is_whole) = self.number()?;
                write_number(out, token, is_whole);
                Ok(())
            }
            _ => {
                let start = self.at;
                self.literal()?;
                out.push_str(&self.text[start..self.at]);
                Ok(())
            }
        }
    }

    fn rewrite_array(&mut self, out: &mut String) -> Result<(), JsonError> {
        let mut is_first = true;
        self.at += 1;
        out.push('[');
        while self.element(is_first)? {
            if !is_first {
                out.push(',');
            }
            self.rewrite(out, None)?;
            is_first = false;
        }
        out.push(']');
        Ok(())
    }

    fn rewrite_object(&mut self, out: &mut String, without: Option<&str>) -> Result<(), JsonError> {
        let mut members: Vec<(Cow<'a, str>, Range<usize>)> = Vec::new();
        self.at += 1;
        out.push('{');
        let start = out.len();
        while let Some(key) = self.key()? {
            let end = out.len();
            if !members.is_empty() {
                out.push(',');
            }
            let from = out.len();
            match &key.text {
                Cow::Borrowed(plain) => out.extend(["\"", plain, "\""]),
                Cow::Owned(text) => write_text(out, text),
            }
            out.push(':');
            self.rewrite(out, None)?;
            if without == Some(&*key.text) {
                out.truncate(end);
            } else {
                members.push((key.text, from..out.len()));
            }
        }
        sort_members(out, start, members);
        out.push('}');
        Ok(())
    }
}

/// Puts the members that were written from `start` on into the order of RFC 8785, by UTF-16 code units.
fn sort_members(out: &mut String, start: usize, mut members: Vec<(Cow<'_, str>, Range<usize>)>) {
    let order = |a: &str, b: &str| a.encode_utf16().cmp(b.encode_utf16());
    if members.is_sorted_by(|(a, _), (b, _)| order(a, b).is_le()) {
        return;
    }
    members.sort_by(|(a, _), (b, _)| order(a, b));
    let sorted: Vec<&str> = members.iter().map(|(_, span)| &out[span.clone()]).collect();
    let sorted = sorted.join(",");
    out.truncate(start);
    out.push_str(&sorted);
}

fn write_string(out: &mut String, quoted: &str, escaped: bool) {
    if escaped { write_text(out, &unescape(quoted)) } else { out.push_str(quoted) }
}

/// serde_json's escapes are those of RFC 8785: the short ones, else `\u00xx` in lower case, and nothing more.
fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string can always be written"));
}

/// The number as ECMAScript writes it; of two shortest forms that are equally near, the even one, which Rust's own writer
/// does not promise.
fn write_number(out: &mut String, token: &str, is_whole: bool) {
    if is_whole {
        out.push_str(if token == "-0" { "0" } else { token });
        return;
    }
    let number: f64 = token.parse().expect("a scanned number can be read");
    out.push_str(ryu_js::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    const MAX: usize = 64 * 1024;

    fn pass(text: &str) -> Result<(), JsonError> {
        check(text.as_bytes(), MAX).map(|_| ())
    }

    fn canonical(text: &str) -> String {
        check(text.as_bytes(), MAX).unwrap().canonical(None)
    }

    /// JSON values with distinct keys and numbers that every language holds.
    fn values() -> impl Strategy<Value = Value> {
        let whole = -(NUMBER_MAX as i64)..=NUMBER_MAX as i64;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            whole.prop_map(Value::from),
            any::<f64>().prop_filter("within the limit", |n| n.abs() <= NUMBER_MAX as f64).prop_map(Value::from),
            (-1e-3..1e-3f64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 96, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..12)
                    .prop_map(|members: BTreeMap<_, _>| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    #[rustfmt::skip]
    fn what_json_is_passes() {
        for text in [
            "0", "-0", "1.5", "-1e-7", "1E+2", "true", "false", "null", "\"\"", "[]", "{}", " [ ] ", "\t{ }\r",
            r#"{"a":1,"b":[1,2,{"a":null}],"c":"\u00e9\ud83d\ude00\n\\\/"}"#, r#"[{"a":1},{"a":1}]"#,
            r#"{"a":{"a":{"a":1}}}"#, "\"\u{7f}é😀 much longer than eight bytes\"",
        ] {
            assert_eq!(pass(text), Ok(()), "{text}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_no_json_is_refused() {
        for text in [
            "", " ", "{", "}", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"", "{\"a\":", "{\"a\":1",
            "{\"a\":1,", "{\"a\":1,}", "{,\"a\":1}", "{\"a\" 1}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}",
            "{\"a\":1]", "[1}", "01", "-", "-01", "1.", ".5", "+1", "1e", "1e+", "0x1", "1a", "tru", "nul", "True",
            "NaN", "Infinity", "\"", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"",
            "\"\\ud800\\n\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\u{1}\"", "\"\t\"", "1 2", "{}{}", "[] x",
            "'a'", "{\"a\":1}}", "\u{feff}{}", "/**/1",
        ] {
            assert!(matches!(pass(text), Err(JsonError::Malformed { .. })), "{text:?}: {:?}", pass(text));
        }
    }

    #[test]
    fn a_raw_line_feed_is_refused_wherever_it_stands() {
        for (text, at) in [("\n1", 0), ("1\n", 1), ("{\n}", 1), ("[1,\n2]", 3), ("\"a\nb\"", 2), ("{\"a\":\n1}", 5)] {
            assert_eq!(pass(text), Err(JsonError::LineFeed { at }), "{text:?}");
        }
    }

    #[test]
    fn a_length_is_allowed_at_its_limit_and_refused_past_it() {
        assert!(check(b"[1,2]", 5).is_ok());
        assert_eq!(check(b"[1,2]", 4), Err(JsonError::TooLong { got: 5, max: 4 }));
    }

    #[test]
    fn a_depth_is_allowed_at_its_limit_and_refused_past_it() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(pass(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(pass(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep { at: DEPTH_MAX }));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(pass(&objects(DEPTH_MAX)), Ok(()));
        assert!(matches!(pass(&objects(DEPTH_MAX + 1)), Err(JsonError::TooDeep { .. })));
        assert!(matches!(pass(&"[".repeat(MAX)), Err(JsonError::TooDeep { .. })));
    }

    #[test]
    fn a_count_of_keys_is_allowed_at_its_limit_and_refused_past_it() {
        let object = |keys: usize| {
            let members: Vec<String> = (0..keys).map(|key| format!("\"k{key}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(pass(&object(KEYS_MAX)), Ok(()));
        assert!(matches!(pass(&object(KEYS_MAX + 1)), Err(JsonError::TooManyKeys { .. })));
        let pair = format!("[{},{}]", object(KEYS_MAX), object(KEYS_MAX));
        assert_eq!(pass(&pair), Ok(()));
        let nested = format!("{{\"a\":{},\"b\":{{\"b\":{}}}}}", object(KEYS_MAX), object(KEYS_MAX));
        assert_eq!(pass(&nested), Ok(()));
    }

    #[test]
    #[rustfmt::skip]
    fn a_key_that_comes_twice_is_refused_however_it_is_written() {
        for text in [
            r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"a":1}"#, r#"{"":1,"":2}"#, r#"{"a":1,"\u0061":1}"#,
            r#"{"\u0061":1,"a":1}"#, r#"{"\/":1,"/":1}"#, r#"{"\ud83d\ude00":1,"😀":1}"#,
            r#"[[{"x":{"seq":1,"seq":2}}]]"#, r#"{"a":{"b":1},"c":[1,{"d":1}],"a":2}"#, r#"{"\u000A":1,"\n":1}"#,
        ] {
            assert!(matches!(pass(text), Err(JsonError::DuplicateKey { .. })), "{text}");
        }
        assert_eq!(pass(r#"{"a":1,"a":1}"#), Err(JsonError::DuplicateKey { at: 7 }));
    }

    #[test]
    #[rustfmt::skip]
    fn numbers_are_allowed_at_their_limit_and_refused_past_it() {
        for text in [
            "9007199254740991", "-9007199254740991", "9007199254740991.0", "9.007199254740991e15",
            "90071992547409910e-1", "0.0000000000000000000000000000000001", "1e-400",
            "123456789012345.678901234567890",
        ] {
            assert_eq!(pass(text), Ok(()), "{text}");
        }
        for text in [
            "9007199254740992", "-9007199254740992", "9007199254740992.0", "1e16", "1e400", "-1e400",
            "99999999999999999999999", "18446744073709551616", "1e99999999999999999999",
        ] {
            assert_eq!(pass(text), Err(JsonError::NumberTooLarge { at: 0 }), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(check(b"\"a\xff\"", MAX), Err(JsonError::NotUtf8 { at: 2 }));
    }

    #[test]
    fn a_field_is_found_at_the_top_only() {
        let checked = check(br#"{"b":{"a":1}, "a" : [1, 2] ,"\u0063":"x"}"#, MAX).unwrap();
        assert_eq!(checked.field("a"), Some("[1, 2]"));
        assert_eq!(checked.field("c"), Some("\"x\""));
        assert_eq!(checked.field("d"), None);
        assert_eq!(check(b"[1]", MAX).unwrap().field("a"), None);
    }

    #[test]
    fn g21_malformed_json_is_an_error_and_a_message_of_another_shape_too() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Message {
            seq: u64,
        }
        assert_eq!(parse::<Message>(br#"{"seq":1,"unknown":[]}"#, MAX), Ok(Message { seq: 1 }));
        assert!(matches!(parse::<Message>(br#"{"seq":"#, MAX), Err(JsonError::Malformed { .. })));
        assert!(matches!(parse::<Message>(br#"{"seq":-1}"#, MAX), Err(JsonError::Shape(_))));
        assert!(matches!(parse::<Message>(b"[1]", MAX), Err(JsonError::Shape(_)) | Ok(_)));
    }

    #[test]
    fn a_strangers_text_in_an_error_is_short_and_escaped() {
        #[derive(Debug, Deserialize)]
        enum Word {
            Known,
        }
        assert!(matches!(parse::<Word>(b"\"Known\"", MAX), Ok(Word::Known)));
        let text = format!("\"\\u001b[2J\\n{}\"", "x".repeat(10_000));
        let error = parse::<Word>(text.as_bytes(), MAX).unwrap_err().to_string();
        assert!(error.len() < 300 && !error.contains(char::is_control), "{error}");
    }

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785() {
        // The examples of the RFC's sections 3.2.2 and 3.2.3, numbers beyond our limit taken out.
        let text = concat!(
            r#"{"numbers":[4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","#,
            r#""literals":[null,true,false]}"#
        );
        assert_eq!(
            canonical(text),
            concat!(
                r#"{"literals":[null,true,false],"numbers":[4.5,0.002,1e-27],"#,
                r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
            )
        );
        let keys = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(canonical(keys), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
    }

    #[test]
    fn of_two_shortest_numbers_that_are_equally_near_the_even_one_is_written() {
        assert_eq!(canonical("[802130573850313.25]"), "[802130573850313.2]");
        assert_eq!(canonical("[0.0, -0.0, 1e-7, 0.000001, 123456.75]"), "[0,0,1e-7,0.000001,123456.75]");
    }

    #[test]
    fn the_canonical_form_leaves_out_the_field_at_the_top_only() {
        let text = r#"{ "sig" : "x", "b" : {"sig":1}, "\u0073ig2":2, "a":-0 }"#;
        let checked = check(text.as_bytes(), MAX).unwrap();
        assert_eq!(checked.canonical(Some("sig")), r#"{"a":0,"b":{"sig":1},"sig2":2}"#);
        for text in [r#"{"sig":1}"#, r#"{"s\u0069g":1}"#] {
            assert_eq!(check(text.as_bytes(), MAX).unwrap().canonical(Some("sig")), "{}");
        }
        assert_eq!(check(br#"{"a":1,"sig":1}"#, MAX).unwrap().canonical(Some("sig")), r#"{"a":1}"#);
    }

    proptest! {
        #[test]
        fn whatever_is_written_with_distinct_keys_passes(value in values()) {
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(pass(&text), Ok(()));
            prop_assert_eq!(parse::<Value>(text.as_bytes(), MAX).unwrap(), value);
        }

        #[test]
        fn the_canonical_form_is_the_one_of_another_writer(value in values()) {
            let text = serde_json::to_string(&value).unwrap();
            let written = canonical(&text);
            prop_assert_eq!(&written, &serde_json_canonicalizer::to_string(&value).unwrap());
            prop_assert_eq!(&canonical(&written), &written);
        }

        #[test]
        fn a_duplicate_at_any_depth_is_refused(value in values(), key in any::<String>(), depth in 0usize..8, in_array in any::<bool>()) {
            let key = serde_json::to_string(&key).unwrap();
            let mut text = format!("{{{key}:1,\"other{}\":{value},{key}:2}}", "x".repeat(40));
            for _ in 0..depth {
                text = if in_array { format!("[0,{text}]") } else { format!("{{\"k\":{text}}}") };
            }
            let refused = matches!(pass(&text), Err(JsonError::DuplicateKey { .. } | JsonError::TooDeep { .. }));
            prop_assert!(refused, "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(checked) = check(&bytes, MAX) {
                let _ = checked.canonical(Some("signature"));
            }
        }

        #[test]
        fn what_looks_like_json_is_judged_as_serde_judges_it(text in r#"[\[\]{}:,"\\u0-9a-f eE+.\-tn]{0,24}"#) {
            let ours = pass(&text);
            if ours.is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
                let _ = check(text.as_bytes(), MAX).unwrap().canonical(None);
            } else if matches!(ours, Err(JsonError::Malformed { .. })) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_err(), "{}", text);
            }
        }
    }
}
