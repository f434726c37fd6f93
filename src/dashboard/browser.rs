//! What a browser may do here: only pages of the same address may change something. Programs that
//! are no browsers say nothing of where a call comes from, and are not judged here.

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
}
