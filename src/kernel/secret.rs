//! Values that no output may show.

use std::fmt;
use std::sync::{Arc, RwLock};

use serde_json::Value;

/// What stands in the place of a masked secret.
pub const MASK: &str = "[redacted]";

/// Secrets shorter than this are refused: masking them would mask half of every output.
pub const SHORTEST_SECRET: usize = 8;

/// A value that is printed as `[redacted]` and can be neither displayed nor serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; only for what hands it to a server.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A secret that is too short to be masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret `{name}` has fewer than {SHORTEST_SECRET} characters and could not be masked")]
pub struct ShortSecret {
    name: String,
}

/// Masks every known secret, also in its base64, URL and JSON form. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    needles: Arc<RwLock<Vec<Secret<String>>>>,
}

impl Redactor {
    /// Makes a secret known. From here on no text that passes through [`Redactor::mask`] shows it.
    pub fn register(&self, name: &str, secret: &str) -> Result<(), ShortSecret> {
        if secret.chars().count() < SHORTEST_SECRET {
            return Err(ShortSecret { name: name.to_owned() });
        }
        let mut forms = vec![secret.to_owned(), url_form(secret), json_form(secret)];
        // Inside a longer base64 text a secret can start at any of three bit offsets; the digits that
        // depend on its neighbours are cut off.
        for offset in 0..3 {
            let padded = [&b"\0\0"[..offset], secret.as_bytes()].concat();
            let digits = base64(&padded);
            let from = [0, 2, 3][offset];
            let to = padded.len() / 3 * 4;
            if let Some(stable) = digits.get(from..to).filter(|text| text.len() >= SHORTEST_SECRET)
            {
                forms.push(stable.replace('+', "-").replace('/', "_"));
                forms.push(stable.to_owned());
            }
        }
        let mut needles = self.needles.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for form in forms {
            if !needles.iter().any(|known| *known.expose() == form) {
                needles.push(Secret::new(form));
            }
        }
        // Longest first, so that a form that contains another is masked as a whole.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.expose().len()));
        Ok(())
    }

    /// The text with every known secret replaced by `[redacted]`.
    pub fn mask(&self, text: &str) -> String {
        let needles = self.needles.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        needles.iter().fold(text.to_owned(), |text, needle| {
            if text.contains(needle.expose().as_str()) {
                text.replace(needle.expose().as_str(), MASK)
            } else {
                text
            }
        })
    }

    /// Masks every text inside a JSON value, keys included.
    pub fn mask_json(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(fields) => {
                let masked = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                    self.mask_json(&mut value);
                    (self.mask(&key), value)
                });
                *fields = masked.collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether no secret is known.
    pub fn is_empty(&self) -> bool {
        self.needles.read().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
    }
}

fn url_form(secret: &str) -> String {
    url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()
}

fn json_form(secret: &str) -> String {
    let quoted = Value::String(secret.to_owned()).to_string();
    quoted.trim_matches('"').to_owned()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let digit = |bits: u32| char::from(BASE64[usize::try_from(bits & 63).unwrap_or(0)]);
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(digit(word >> (18 - 6 * index)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2hunter2")), MASK);
    }

    #[test]
    fn every_form_is_masked() {
        let redactor = Redactor::default();
        let secret = "p@ss \"word\"/1234+\\";
        redactor.register("S", secret).unwrap();
        let mut leaks = vec![secret.to_owned(), url_form(secret), json_form(secret)];
        for prefix in ["", "u", "us", "user:", "x-y:z;"] {
            leaks.push(base64(format!("{prefix}{secret}").as_bytes()));
        }
        for leak in leaks {
            let masked = redactor.mask(&format!("before {leak} after"));
            assert!(masked.contains(MASK), "{leak} was not masked: {masked}");
            assert!(masked.starts_with("before ") && masked.ends_with(" after"));
        }
    }

    #[test]
    fn json_is_masked_throughout() {
        let redactor = Redactor::default();
        redactor.register("S", "topsecretvalue").unwrap();
        let mut value = serde_json::json!({"topsecretvalue": ["a topsecretvalue b", 1, null]});
        redactor.mask_json(&mut value);
        assert_eq!(value.to_string(), r#"{"[redacted]":["a [redacted] b",1,null]}"#);
    }

    #[test]
    fn short_secrets_are_refused() {
        assert!(Redactor::default().register("PIN", "1234").is_err());
    }

    #[test]
    fn base64_digits() {
        assert_eq!(base64(b"Man"), "TWFu");
        assert_eq!(base64(b"Ma"), "TWE");
        assert_eq!(base64(b"M"), "TQ");
    }
}
