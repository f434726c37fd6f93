//! What a browser may do here: only pages of the same address may change something. Programs that
//! are no browsers say nothing of where a call comes from, and are not judged here.

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method};

/// Whether a page of another address sent this call. Such a page cannot read an answer, but a
/// browser would send what it asks for, to every address that the machine reaches.
pub fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_upgrade = header("upgrade").is_some();
    if method.is_safe() && !is_upgrade {
        return false;
    }
    match header("sec-fetch-site") {
        Some("same-origin" | "none") => return false,
        Some(_) => return true,
        None => {}
    }
    let Some(origin) = header(ORIGIN.as_str()) else { return false };
    let own = origin.split_once("://").map(|(_, host)| host);
    own.is_none() || own != header(HOST.as_str())
}

/// Whether a page may have sent this call whose name somebody made an address of this machine or
/// its network: to the browser it is of the same address. Nobody does that to an address that is
/// written out, to `localhost` or to one of `hosts`, nor to a page over HTTPS, of which a browser
/// says `Sec-Fetch-Site`.
pub fn is_rebound(method: &Method, headers: &HeaderMap, hosts: &[String]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if method.is_safe() && header("upgrade").is_none() || header("sec-fetch-site").is_some() {
        return false;
    }
    header(ORIGIN.as_str()).is_some()
        && !header(HOST.as_str()).is_some_and(|host| {
            address(host).is_some() || is_local_name(host) || is_one_of(host, hosts)
        })
}

/// Whether a `Host` names this machine alone.
pub fn is_loopback(host: &str) -> bool {
    is_local_name(host) || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a `Host` is one of these names, with any port.
pub fn is_one_of(host: &str, hosts: &[String]) -> bool {
    hosts.iter().any(|one| one.eq_ignore_ascii_case(name(host)))
}

fn is_local_name(host: &str) -> bool {
    name(host).eq_ignore_ascii_case("localhost")
}

fn address(host: &str) -> Option<IpAddr> {
    let name = name(host);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    bare.unwrap_or(name).parse().ok()
}

/// A `Host` without its port.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &Method, given: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().expect("a header"));
        }
        is_foreign(method, &headers)
    }

    #[test]
    fn only_pages_of_the_same_address_change_something() {
        let host = ("host", "127.0.0.1:57374");
        let own = ("origin", "http://127.0.0.1:57374");
        let other = ("origin", "https://example.com");
        for good in [
            &[host][..],
            &[host, own],
            &[host, own, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
            // A proxy may name another host to us; the browser knows better.
            &[("host", "inside:1"), own, ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!judged(&Method::POST, good), "{good:?}");
        }
        for bad in [
            &[host, other][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://127.0.0.1:1")],
            &[host, own, ("sec-fetch-site", "cross-site")],
            &[host, own, ("sec-fetch-site", "same-site")],
        ] {
            assert!(judged(&Method::POST, bad), "{bad:?}");
            assert!(!judged(&Method::GET, bad), "reading is kept apart by the browser: {bad:?}");
        }
        assert!(judged(&Method::GET, &[host, other, ("upgrade", "websocket")]));
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in
            ["localhost", "LocalHost:57374", "127.0.0.1:1", "127.8.0.1", "[::1]:80", "[::1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "127.0.0.1.example.com:80", "10.0.0.1:57374", "[::1].a.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_name_that_anybody_may_give_an_address_changes_nothing_from_a_browser() {
        let judged = |method: &Method, host: &str, site: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().expect("a host"));
            headers.insert("origin", format!("http://{host}").parse().expect("an origin"));
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().expect("a site"));
            }
            assert!(!is_foreign(method, &headers), "it looks like a page of ours");
            is_rebound(method, &headers, &["claw.lan".to_owned()])
        };
        for host in ["10.0.0.1:8080", "[fe80::1]:8080", "localhost:8080", "Claw.lan:8080"] {
            assert!(!judged(&Method::POST, host, None), "{host}");
        }
        for host in ["evil.example:8080", "evil.example", "10.0.0.1.evil.example", "x.claw.lan"] {
            assert!(judged(&Method::POST, host, None), "{host}");
            assert!(!judged(&Method::GET, host, None), "{host}");
            assert!(!judged(&Method::POST, host, Some("same-origin")), "{host}");
        }
        let mut program = HeaderMap::new();
        program.insert("host", "openclaw:8080".parse().expect("a host"));
        assert!(!is_rebound(&Method::POST, &program, &[]));
    }
}
