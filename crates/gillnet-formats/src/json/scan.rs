//! The JSON grammar (RFC 8259), to the letter: white space, strings, literals, and values that nobody asked for.

use super::number::{self, Number};
use crate::reason::{fault, Fault, Parse, Reason};

/// A position in one record, which is known to be UTF-8.
pub(crate) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

/// A string as it stands between its quotes, with valid escapes.
#[derive(Clone, Copy)]
pub(crate) struct RawString<'a> {
    pub body: &'a [u8],
    pub escaped: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Step over `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Step over `expected` if it is next.
    #[inline]
    pub fn take_all(&mut self, expected: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Only white space may follow.
    pub fn finish(&mut self) -> Parse<()> {
        self.skip_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.syntax("nothing more"))
        }
    }

    #[cold]
    pub fn syntax(&self, expected: &str) -> Box<Fault> {
        let found = match self.bytes.get(self.at) {
            None => "the end of the record".to_owned(),
            Some(byte) => format!("'{}'", byte.escape_ascii()),
        };
        fault(Reason::NotJson, format!("byte {}: expected {expected}, found {found}", self.at))
    }

    /// Step over a string, whose opening quote is next; its escapes are checked.
    #[inline]
    pub fn string(&mut self) -> Parse<RawString<'a>> {
        if !self.take(b'"') {
            return Err(self.syntax("a string"));
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain_until(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.syntax("no control character in a string")),
                None => return Err(self.syntax("'\"'")),
            }
        }
        self.at += 1;
        Ok(RawString { body: &self.bytes[start..self.at - 1], escaped })
    }

    /// Step over an escape, whose backslash is next.
    fn escape(&mut self) -> Parse<()> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.syntax("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.syntax("an escape of JSON")),
        }
        Ok(())
    }

    #[inline]
    pub fn number(&mut self) -> Parse<Number<'a>> {
        number::scan(self)
    }

    /// Step over `true`, `false` or `null`.
    #[inline]
    pub fn literal(&mut self, text: &'static [u8]) -> Parse<()> {
        if self.take_all(text) {
            Ok(())
        } else {
            Err(self.syntax("a JSON value"))
        }
    }

    /// Step over a value that is no object or array.
    fn skip_scalar(&mut self) -> Parse<()> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => Err(self.syntax("a JSON value")),
        }
    }

    /// Step over a whole value and return how deep it nests: 0 for a scalar, 1 for `{}`.
    ///
    /// Checks the grammar in full. Nesting costs one byte of heap a level and no stack, so that no record can overflow it.
    pub fn skip_value(&mut self) -> Parse<usize> {
        let mut open: Vec<u8> = Vec::new();
        let mut deepest = 0;
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.at += 1;
                    open.push(bracket);
                    deepest = deepest.max(open.len());
                    self.skip_space();
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    if self.peek() != Some(close) {
                        self.skip_name(bracket)?;
                        continue;
                    }
                }
                _ => self.skip_scalar()?,
            }
            if !self.next_element(&mut open)? {
                return Ok(deepest);
            }
        }
    }

    /// After a value: close what ends here and step to the next element; false if the outermost value is complete.
    fn next_element(&mut self, open: &mut Vec<u8>) -> Parse<bool> {
        while let Some(&bracket) = open.last() {
            self.skip_space();
            let close = if bracket == b'{' { b'}' } else { b']' };
            if self.take(close) {
                open.pop();
            } else if self.take(b',') {
                self.skip_space();
                self.skip_name(bracket)?;
                return Ok(true);
            } else {
                return Err(self.syntax(if bracket == b'{' { "',' or '}'" } else { "',' or ']'" }));
            }
        }
        Ok(false)
    }

    /// Inside an object, step over the field's name and colon.
    fn skip_name(&mut self, bracket: u8) -> Parse<()> {
        if bracket == b'{' {
            self.string()?;
            self.colon()?;
        }
        Ok(())
    }

    /// Step over a colon and the white space around it.
    #[inline]
    pub fn colon(&mut self) -> Parse<()> {
        self.skip_space();
        if !self.take(b':') {
            return Err(self.syntax("':'"));
        }
        self.skip_space();
        Ok(())
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The first byte from `at` on that a string cannot hold as it is: a quote, a backslash or a control character.
///
/// Eight bytes at a time: `(x - 1) & !x` has the high bit set in the lowest zero byte of x.
#[inline]
pub(crate) fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let special = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if special & HIGHS != 0 {
            return at + ((special & HIGHS).trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(text: &str) -> Result<usize, String> {
        let mut cursor = Cursor::new(text.as_bytes());
        let depth = cursor.skip_value().map_err(|fault| fault.detail)?;
        cursor.finish().map_err(|fault| fault.detail)?;
        Ok(depth)
    }

    #[test]
    fn the_grammar_to_the_letter() {
        for (text, depth) in
            [("0", 0), ("-0.5E+10", 0), ("\"\\u00e9\\n\"", 0), ("[]", 1), ("{ }", 1), ("[1, {\"a\" : [null ]} ]", 3)]
        {
            assert_eq!(skip(text), Ok(depth), "{text}");
        }
        for text in [
            "",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "nul",
            "NaN",
            "Infinity",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"",
            "[1}",
            "{]",
            "1 2",
            "[",
            "{\"a\":1",
            "'a'",
            "\u{feff}1",
        ] {
            assert!(skip(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = 1_000_000;
        assert_eq!(skip(&("[".repeat(deep) + &"]".repeat(deep))), Ok(deep));
    }

    #[test]
    fn every_special_byte_is_found_at_every_offset() {
        for special in (0..=0x1f).chain([b'"', b'\\']) {
            for offset in 0..20 {
                let mut text = vec![0xc3; 20];
                text[offset] = special;
                text.extend_from_slice(&[special; 3]);
                assert_eq!(plain_until(&text, 0), offset);
            }
        }
        assert_eq!(plain_until(&[b'~'; 23], 0), 23);
    }
}
