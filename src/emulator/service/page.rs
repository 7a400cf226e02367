//! Lists in pages. PURE.

use serde_json::{Value, json};

use super::error::ApiError;

/// How many elements a page has when nobody says.
const USUAL: usize = 100;

/// Which page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    size: usize,
    /// The name of the last element of the page before.
    after: Option<String>,
}

impl Page {
    pub(super) fn read(
        size: Option<&str>,
        token: Option<&str>,
        most: usize,
    ) -> Result<Self, ApiError> {
        let size = match size.map(str::parse::<i64>) {
            None | Some(Ok(0)) => USUAL.min(most),
            Some(Ok(size)) => match usize::try_from(size) {
                Ok(size) if size <= most => size,
                _ => return Err(ApiError::invalid(format!("page_size must be from 0 to {most}"))),
            },
            Some(Err(_)) => return Err(ApiError::invalid("page_size must be a number")),
        };
        let after = token.map(|token| {
            decode(token).ok_or_else(|| {
                ApiError::invalid(format!("page_token '{token}' is none that was given out"))
            })
        });
        Ok(Self { size, after: after.transpose()? })
    }

    /// Cuts the page out of all elements, which are in the order of their names.
    pub(super) fn of(&self, plural: &str, all: Vec<(String, Value)>) -> Value {
        let later = |name: &str| self.after.as_deref().is_none_or(|after| name > after);
        let mut rest = all.into_iter().filter(|(name, _)| later(name)).peekable();
        let (mut shown, mut last) = (Vec::new(), String::new());
        while shown.len() < self.size
            && let Some((name, element)) = rest.next()
        {
            shown.push(element);
            last = name;
        }
        let mut answer = json!({ plural: shown });
        if rest.peek().is_some() {
            answer["next_page_token"] = json!(encode(&last));
        }
        answer
    }
}

fn encode(name: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("after:{name}"))
}

fn decode(token: &str) -> Option<String> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(String::from_utf8(bytes).ok()?.strip_prefix("after:")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all = || ["a", "b", "c", "d"].map(|it| (it.to_owned(), json!(it))).to_vec();
        let first = Page::read(Some("3"), None, 100).unwrap().of("names", all());
        assert_eq!(first["names"], json!(["a", "b", "c"]));
        let token = first["next_page_token"].as_str().unwrap();
        let second = Page::read(Some("3"), Some(token), 100).unwrap().of("names", all());
        assert_eq!(second, json!({"names": ["d"]}));
        let whole = Page::read(Some("4"), None, 100).unwrap().of("names", all());
        assert!(whole.get("next_page_token").is_none());
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (size, token) in [(Some("101"), None), (Some("-1"), None), (None, Some("x!"))] {
            assert!(Page::read(size, token, 100).is_err(), "{size:?} {token:?}");
        }
        assert_eq!(Page::read(Some("0"), None, 20).unwrap().size, 20);
    }
}
