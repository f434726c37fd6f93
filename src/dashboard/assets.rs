//! The page itself, built from `dashboard/` and embedded. It needs nothing from anywhere else, and
//! its headers let nothing else in.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use axum::http::header::{HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

/// Scripts, styles and fonts of this address only, none inline, no frame around it.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The files of the page: name, type, bytes.
pub const FILES: [(&str, &str, &[u8]); 5] = [
    ("index.html", "text/html; charset=utf-8", include_bytes!("assets/index.html")),
    ("page.js", "text/javascript; charset=utf-8", include_bytes!("assets/page.js")),
    ("page.css", "text/css; charset=utf-8", include_bytes!("assets/page.css")),
    ("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ("inter.woff2", "font/woff2", include_bytes!("assets/inter.woff2")),
];

/// The digest of the files, as the build wrote it: a browser asks with it whether it has the
/// newest ones.
const DIGEST: &str = include_str!("assets/digest");

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// `GET /dashboard/{name}`.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, bytes)) = FILES.into_iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let digest = DIGEST.lines().next().unwrap_or_default();
    let tag = format!("\"{digest}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|asked| asked.as_bytes() == tag.as_bytes());
    let kept = [(CACHE_CONTROL, "no-cache".to_owned()), (ETAG, tag)];
    if known {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(CONTENT_TYPE, kind)], secure(), bytes).into_response()
}

/// The headers that keep the page to itself.
pub fn secure() -> [(HeaderName, &'static str); 6] {
    [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ]
}
