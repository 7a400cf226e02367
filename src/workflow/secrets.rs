//! Finding secrets that are written in clear.

/// Beginnings of well-known tokens, and how long these are at least.
const TOKENS: &[(&str, usize)] = &[
    ("dapi", 32),
    ("dkea", 32),
    ("ghp_", 30),
    ("gho_", 30),
    ("github_pat_", 30),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AKIA", 20),
    ("sk-", 24),
    ("-----BEGIN", 20),
];

/// Endings of keys whose values are secret.
const KEYS: &[&str] =
    &["password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "private_key"];

/// Texts that stand for "no value".
const SHORTEST: usize = 6;

/// Whether a text looks like a secret by itself.
pub(super) fn is_secret(text: &str) -> bool {
    let text = text.trim();
    let bare = text.strip_prefix("Bearer ").unwrap_or(text).trim();
    let is_one_word = !bare.contains(char::is_whitespace) || bare.starts_with("-----BEGIN");
    let is_token = TOKENS
        .iter()
        .any(|(start, length)| is_one_word && bare.starts_with(start) && bare.len() >= *length);
    let is_bearer = text.starts_with("Bearer ") && bare.len() >= SHORTEST && !bare.contains("${{");
    is_token || is_bearer || is_web_token(bare) || has_password(text)
}

/// Whether a literal under this key is a secret.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    KEYS.iter().any(|ending| key.ends_with(ending))
}

/// Whether a literal can be a secret at all.
pub(super) fn is_worth_hiding(text: &str) -> bool {
    text.trim().len() >= SHORTEST && !text.contains("${{")
}

/// `header.payload.signature` in base64.
fn is_web_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.len() > 40 && text.matches('.').count() == 2
}

/// `scheme://user:password@host`
fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, _)) = authority.rsplit_once('@') else { return false };
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty() && is_literal(password))
}

fn is_literal(password: &str) -> bool {
    !password.contains("${{") && password.chars().any(|c| c != '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised() {
        let token = format!("dapi{}", "0123456789abcdef".repeat(2));
        assert!(is_secret(&token));
        assert!(is_secret(&format!("Bearer {token}")));
        assert!(is_secret("postgresql://app:hunter22@db/x"));
        assert!(is_secret("-----BEGIN PRIVATE KEY-----"));
        assert!(is_secret_key("Authorization") && is_secret_key("db_password"));
    }

    #[test]
    fn ordinary_texts_are_not() {
        for text in [
            "",
            "Bearer ${{ secrets.TOKEN }}",
            "postgresql://app@db/x",
            "https://example.com/a:b@c",
            "skip-dependents",
            "dapi is short",
            "sk- is no key",
            "connections did not recover",
            "postgresql://app:${{ secrets.PASSWORD }}@db",
        ] {
            assert!(!is_secret(text), "{text}");
        }
        assert!(!is_secret_key("tokens_per_minute"));
    }
}
