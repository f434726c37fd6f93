//! Calls of a running bridge, through the address in its data directory, and of the server. It
//! reads no store.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client as Http, Method, RequestBuilder};
use serde_json::Value;

use super::failure::{Code, Failure};
use crate::config::{BridgeConfig, Secret};
use crate::protocol::Refusal;

/// How long a person waits for an answer before a sentence is better.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of the data directory that has the address of the running bridge.
pub const ENDPOINT_FILE: &str = "endpoint";

/// Somebody who can be called.
pub struct Client {
    http: Http,
    base: String,
    token: Option<Secret>,
    name: &'static str,
}

impl Client {
    /// The running bridge of this configuration.
    ///
    /// # Errors
    /// When none is running.
    pub fn bridge(config: &BridgeConfig) -> Result<Self, Failure> {
        let path = config.openclaw.data_dir.join(ENDPOINT_FILE);
        let base = address(&path)?;
        Ok(Self {
            http: client(true)?,
            base,
            token: config.dashboard.token.clone(),
            name: "the bridge",
        })
    }

    /// The server of this configuration.
    ///
    /// # Errors
    /// When none is configured.
    pub fn server(config: &BridgeConfig) -> Result<Self, Failure> {
        let bridge = &config.openclaw;
        let missing = "no server is configured: set LOKI_OPENCLAW_ENDPOINT or openclaw.endpoint";
        let base = bridge.endpoint.clone().ok_or_else(|| Failure::new(Code::Usage, missing))?;
        let local = base.contains("://localhost") || base.contains("://127.");
        let token = bridge.auth_token.clone();
        Ok(Self { http: client(local)?, base, token, name: "the server" })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let (_, value) = self.any(path, query).await?;
        Ok(value)
    }

    /// As [`Client::get`], and also gives the body of a `503`, which says why.
    ///
    /// # Errors
    /// When nobody answers, or the answer is another refusal.
    pub async fn any(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, Value), Failure> {
        self.call(self.http.request(Method::GET, self.url(path, query))).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.url(path, &[])).json(body);
        Ok(self.call(request).await?.1)
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> String {
        format!("{}{}", self.base.trim_end_matches('/'), target(path, query))
    }

    async fn call(&self, request: RequestBuilder) -> Result<(u16, Value), Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        let unreachable = |error: reqwest::Error| {
            let reason = reason(&error);
            let text = format!("cannot reach {} at {}: {reason}", self.name, self.base);
            let failure = Failure::new(Code::Unreachable, text);
            if is_refused(&error) { failure.absent() } else { failure }
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(unreachable)?;
        if let Some(refusal) = Refusal::from_problem(&body).filter(|_| status >= 400) {
            return Err(refused(status, &refusal.detail));
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status < 400 || (status == 503 && value.is_object()) {
            return Ok((status, value));
        }
        Err(refused(status, &format!("{} answered with HTTP status {status}", self.name)))
    }
}

/// A path with its query.
pub fn target(path: &str, query: &[(&str, String)]) -> String {
    let pair = |(name, value): &(&str, String)| format!("{name}={}", escaped(value));
    let query: Vec<String> = query.iter().map(pair).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{path}{mark}{}", query.join("&"))
}

/// Nobody listens there: whoever did was killed.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    let causes = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    });
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == ErrorKind::ConnectionRefused)
}

/// The failure for an answer of this status.
pub fn refused(status: u16, detail: &str) -> Failure {
    let code = match status {
        400 | 413 | 422 => Code::Usage,
        401 | 403 => Code::Refused,
        500.. => Code::Unreachable,
        _ => Code::NotSo,
    };
    let failure = Failure::new(code, detail);
    // A server, whose data directory this may be, has no such page.
    if status == 404 { failure.absent() } else { failure }
}

fn client(local: bool) -> Result<Http, Failure> {
    let builder = Http::builder().timeout(PATIENCE);
    let builder = if local { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| Failure::new(Code::Unreachable, error.to_string()))
}

/// The address in an endpoint file.
fn address(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            let text = format!("no bridge is running here: {} is not there", path.display());
            return Failure::new(Code::Unreachable, text).absent();
        }
        Failure::new(Code::Unreachable, format!("cannot read {}: {error}", path.display()))
    })?;
    Ok(text.trim().to_owned())
}

/// A value as it stands in a query.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Why a call failed, down to the first cause.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it does not answer".into();
    }
    if error.is_connect() {
        return "it is not there".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_query_is_escaped() {
        assert_eq!(escaped("a-1 &é"), "a-1%20%26%C3%A9");
    }
}
