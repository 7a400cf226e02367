//! Where endpoints listen: each on a loopback address of its own, with PostgreSQL's usual port.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use super::error::FleetError;
use super::record::{read_json, write_json};
use super::types::{Address, EndpointId};
use crate::kernel::Digest;

const PORT: u16 = 5432;
/// How many addresses are tried before a port of 127.0.0.1 has to do.
const ATTEMPTS: u32 = 8;

fn record(state: &Path, endpoint: &EndpointId) -> PathBuf {
    state.join("endpoints").join(format!("{endpoint}.json"))
}

/// Listens where the endpoint listened last, else on the address that belongs to its name, else on a
/// free port of 127.0.0.1.
pub(super) async fn listen(
    state: &Path,
    endpoint: &EndpointId,
) -> Result<(TcpListener, Address), FleetError> {
    let path = record(state, endpoint);
    let last = read_json::<Address>(&path).and_then(|it| Some((it.host.parse().ok()?, it.port)));
    let own = (0..ATTEMPTS).map(|attempt| (own_address(endpoint, attempt), PORT));
    let any = (Ipv4Addr::LOCALHOST, 0);
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (host, port) in last.into_iter().chain(own).chain([any]) {
        let host: Ipv4Addr = host;
        if !host.is_loopback() {
            continue;
        }
        match TcpListener::bind((host, port)).await {
            Ok(listener) => {
                let bound = listener.local_addr();
                let port = bound.map_err(|e| FleetError::copy("listen for", &path, e))?.port();
                let address = Address { host: host.to_string(), port };
                write_json(&path, &address)?;
                return Ok((listener, address));
            }
            Err(e) => failed = e,
        }
    }
    Err(FleetError::copy("listen for", &path, failed))
}

/// Forgets where the endpoint listened.
pub(super) fn forget(state: &Path, endpoint: &EndpointId) {
    // What is left over only makes an address be tried first again.
    drop(std::fs::remove_file(record(state, endpoint)));
}

/// The address as the certificate names it.
pub(super) fn ip(address: &Address) -> IpAddr {
    address.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// 127.x.y.z, the same for a name on every day.
fn own_address(endpoint: &EndpointId, attempt: u32) -> Ipv4Addr {
    let digest = Digest::of_bytes(format!("{endpoint}\0{attempt}").as_bytes()).to_string();
    let digits: Vec<u8> = digest.bytes().rev().take(6).collect();
    let byte = |at: usize| {
        let text = digits.get(at..at + 2).and_then(|two| std::str::from_utf8(two).ok());
        text.and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or(1)
    };
    // 127.0.x.y belongs to others, such as local name servers.
    Ipv4Addr::new(127, 16 + byte(0) % 224, byte(2), 1 + byte(4) % 254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_steady_and_apart() {
        let id = |name: &str| EndpointId(name.to_owned());
        let one = own_address(&id("ep-one"), 0);
        assert_eq!(one, own_address(&id("ep-one"), 0));
        assert_ne!(one, own_address(&id("ep-two"), 0));
        assert_ne!(one, own_address(&id("ep-one"), 1));
        assert!(one.is_loopback() && one.octets()[1] >= 16, "{one}");
    }

    #[tokio::test]
    async fn a_taken_address_is_passed_over_and_the_choice_is_kept() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = EndpointId(format!("ep-test-{}", std::process::id()));
        let (first, here) = listen(one.path(), &id).await.unwrap();
        let (_second, there) = listen(two.path(), &id).await.unwrap();
        assert_ne!(here, there, "another fleet has an endpoint of this name");
        drop(first);
        let (_again, address) = listen(one.path(), &id).await.unwrap();
        assert_eq!(address, here);
    }
}
