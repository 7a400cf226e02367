//! Whether a password fits what PostgreSQL keeps of it: SCRAM-SHA-256, RFC 5803 and RFC 7677. PURE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// More rounds than this nobody asks for; PostgreSQL's default is 4096.
const MOST_ROUNDS: u32 = 10_000_000;

/// Whether `password` fits `SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey`. The password is taken as it
/// is: the service draws its passwords from letters and digits, which `SASLprep` does not change.
pub(super) fn verifies(verifier: &str, password: &str) -> bool {
    matches!(stored_key(verifier, password), Some((wanted, found)) if wanted == found)
}

fn stored_key(verifier: &str, password: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = verifier.strip_prefix("SCRAM-SHA-256$")?;
    let (parameters, keys) = rest.split_once('$')?;
    let (rounds, salt) = parameters.split_once(':')?;
    let rounds: u32 = rounds.parse().ok().filter(|rounds| (1..=MOST_ROUNDS).contains(rounds))?;
    let stored = STANDARD.decode(keys.split_once(':')?.0).ok()?;
    let salted = salted_password(password, &STANDARD.decode(salt).ok()?, rounds)?;
    let client_key = hmac(&salted, &[b"Client Key"])?;
    Some((stored, Sha256::digest(client_key).to_vec()))
}

/// `Hi` of RFC 5802: PBKDF2 with HMAC, of one block.
fn salted_password(password: &str, salt: &[u8], rounds: u32) -> Option<Vec<u8>> {
    let mut last = hmac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()])?;
    let mut sum = last.clone();
    for _ in 1..rounds {
        last = hmac(password.as_bytes(), &[&last])?;
        sum.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
    }
    Some(sum)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        // RFC 7677, section 3: user `user`, password `pencil`.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password("pencil", &salt, 4096).unwrap();
        let server_key = hmac(&salted, &[b"Server Key"]).unwrap();
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                       r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&server_key, &[message.as_bytes()]).unwrap();
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]).unwrap());
        let verifier = format!(
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${}:{}",
            STANDARD.encode(stored),
            STANDARD.encode(server_key)
        );
        assert!(verifies(&verifier, "pencil"));
        assert!(!verifies(&verifier, "Pencil") && !verifies(&verifier, ""));
        for wrong in ["", "md5abc", "SCRAM-SHA-256$0:x$y:z", "SCRAM-SHA-256$4096:W22$y"] {
            assert!(!verifies(wrong, "pencil"));
        }
    }
}
