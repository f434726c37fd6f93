//! Who may use the API and its page. Without a token it is for programs and people of this machine;
//! with one, for those who show it: programs in a header, a browser once, for a cookie.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::problem::Failed;
use super::{Api, Shared};
use crate::config::Secret;
use crate::dashboard::{assets, browser};
use crate::protocol::{ErrorCode, Refusal};

/// The cookie of a browser that has shown the token.
const COOKIE_NAME: &str = "openclaw_dashboard";

/// Where a browser shows the token.
pub const SIGN_IN: &str = "/sign-in";

/// What that page looks like, and nothing that it says of the bridge.
const OPEN: [&str; 3] = ["/dashboard/page.css", "/dashboard/inter.woff2", "/dashboard/icon.svg"];

/// The page that asks for the token. It tells nothing and runs no script.
const SIGN_IN_PAGE: &str = include_str!("sign_in.html");

/// Asks for the token. Without one, the API is on a loopback address, and a call must name such an
/// address as its host: a page of the web that resolves its own name to this machine cannot call.
/// Pages of other addresses change nothing in either case.
pub async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (method, headers) = (request.method(), request.headers());
    if browser::is_foreign(method, headers) {
        let detail = "only the page of this address may change something from a browser";
        return Failed(Refusal::new(ErrorCode::Forbidden, detail)).into_response();
    }
    let path = request.uri().path();
    let is_open =
        api.token.is_some() && (path == SIGN_IN && method == Method::POST || OPEN.contains(&path));
    if is_open || is_allowed(api.token.as_ref(), headers) {
        return next.run(request).await;
    }
    let is_page = headers.get(ACCEPT).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if api.token.is_some() && is_page {
        return sign_in_page(StatusCode::UNAUTHORIZED);
    }
    let detail = "show the dashboard's token as a bearer token, or call from this machine";
    Failed(Refusal::new(ErrorCode::Unauthorized, detail)).into_response()
}

fn sign_in_page(status: StatusCode) -> Response {
    let kind = [(CONTENT_TYPE, "text/html; charset=utf-8")];
    (status, kind, assets::secure(), SIGN_IN_PAGE).into_response()
}

/// The form.
#[derive(Deserialize)]
pub struct Shown {
    token: String,
}

/// `POST /sign-in`: a form with the token. A browser gets a cookie for it that no script can read
/// and no other address is sent.
pub async fn sign_in(State(api): Shared, shown: Result<Form<Shown>, FormRejection>) -> Response {
    let (Some(token), Ok(Form(shown))) = (&api.token, shown) else {
        return sign_in_page(StatusCode::UNAUTHORIZED);
    };
    if !same(shown.token.trim().as_bytes(), token.reveal().as_bytes()) {
        return sign_in_page(StatusCode::UNAUTHORIZED);
    }
    let cookie = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Strict", seal(token));
    (StatusCode::SEE_OTHER, [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)]).into_response()
}

fn is_allowed(token: Option<&Secret>, headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(token) = token else { return header(HOST).is_none_or(browser::is_loopback) };
    let bearer = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if bearer.is_some_and(|shown| same(shown.as_bytes(), token.reveal().as_bytes())) {
        return true;
    }
    let cookies = header(COOKIE).into_iter().flat_map(|all| all.split(';'));
    let ours = cookies.filter_map(|one| one.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
    let sealed = seal(token);
    ours.into_iter().any(|shown| same(shown.as_bytes(), sealed.as_bytes()))
}

/// What the cookie says: that somebody had the token, and not the token.
fn seal(token: &Secret) -> String {
    let digest = Sha256::new().chain_update(b"dashboard cookie\0").chain_update(token.reveal());
    format!("{:x}", digest.finalize())
}

/// Compares in a time that does not tell where two texts of one length differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differing = left.iter().zip(right).fold(0, |bits, (left, right)| bits | (left ^ right));
    left.len() == right.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_shows_its_cookie_and_a_program_the_token() {
        let token = Secret::new("sesame");
        let allowed = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            is_allowed(Some(&token), &headers)
        };
        let sealed = seal(&token);
        assert!(!sealed.contains("sesame"));
        for (name, value) in [
            ("authorization", "Bearer sesame".to_owned()),
            ("cookie", format!("{COOKIE_NAME}={sealed}")),
            ("cookie", format!("other=1; {COOKIE_NAME}={sealed}; more=2")),
        ] {
            assert!(allowed(name, &value), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Bearer sesam".to_owned()),
            ("authorization", format!("Bearer {sealed}")),
            ("cookie", format!("{COOKIE_NAME}=sesame")),
            ("cookie", format!("x{COOKIE_NAME}={sealed}")),
            ("host", "localhost".to_owned()),
        ] {
            assert!(!allowed(name, &value), "{name}: {value}");
        }
    }

    #[test]
    fn a_token_is_the_same_or_not() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
