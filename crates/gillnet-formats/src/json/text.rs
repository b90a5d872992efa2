//! The inside of strings: escapes resolved, and written again.

use std::borrow::Cow;

use super::scan::{plain_until, RawString};

/// Half of a surrogate pair stands alone: the text has no UTF-8 form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LoneSurrogate;

/// Append the text that a string's body stands for.
#[inline]
pub(crate) fn append(raw: RawString<'_>, out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    if raw.escaped {
        append_unescaped(raw.body, out)
    } else {
        out.extend_from_slice(raw.body);
        Ok(())
    }
}

/// The text that a string's body stands for. One without a UTF-8 form stays as it is written, which equals no text without
/// a backslash.
pub(crate) fn resolve(raw: RawString<'_>) -> Cow<'_, [u8]> {
    let mut out = Vec::new();
    if raw.escaped && append_unescaped(raw.body, &mut out).is_ok() {
        Cow::Owned(out)
    } else {
        Cow::Borrowed(raw.body)
    }
}

fn append_unescaped(mut body: &[u8], out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    while let Some(backslash) = body.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&body[..backslash]);
        let code = body[backslash + 1];
        body = &body[backslash + 2..];
        match code {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => body = append_unicode(body, out)?,
            same => out.push(same),
        }
    }
    out.extend_from_slice(body);
    Ok(())
}

/// Append the character whose hexadecimal digits `body` starts with, and return what follows it.
fn append_unicode<'a>(body: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], LoneSurrogate> {
    let (first, mut rest) = (hex(body), &body[4..]);
    let code = match first {
        0xd800..=0xdbff => {
            let second = rest.strip_prefix(b"\\u").map(hex).filter(|code| (0xdc00..=0xdfff).contains(code));
            rest = &rest[6.min(rest.len())..];
            0x10000 + ((first - 0xd800) << 10) + (second.ok_or(LoneSurrogate)? - 0xdc00)
        }
        code => code,
    };
    let character = char::from_u32(code).ok_or(LoneSurrogate)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

/// Four hexadecimal digits, which the scanner has checked.
fn hex(body: &[u8]) -> u32 {
    body[..4].iter().fold(0, |value, &digit| value << 4 | char::from(digit).to_digit(16).unwrap_or(0))
}

/// Append `text` as a JSON string with its quotes.
#[inline]
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut from = 0;
    loop {
        let stop = plain_until(text, from);
        out.extend_from_slice(&text[from..stop]);
        let Some(&special) = text.get(stop) else { break };
        write_escape(special, out);
        from = stop + 1;
    }
    out.push(b'"');
}

#[cold]
fn write_escape(special: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match special {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        control => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescape(body: &str) -> Result<String, LoneSurrogate> {
        let mut out = Vec::new();
        append(RawString { body: body.as_bytes(), escaped: true }, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn escapes_and_surrogates() {
        assert_eq!(unescape(r#"a\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00z"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té€😀z");
        for body in [r"\ud83d", r"\ud83dx", r"\ud83d\n", r"\ud83d\u0041", r"\ude00", r"\ud83d\ud83d\ude00"] {
            assert_eq!(unescape(body), Err(LoneSurrogate), "{body}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text: String = (0u32..0x300).chain([0x2028, 0xffff, 0x1f600]).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        write_string(text.as_bytes(), &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }
}
