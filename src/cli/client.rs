//! Calls of a running bridge, through the address in its data directory, and of the server. It
//! reads no store.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::DATE;
use reqwest::{Client as Http, Method, RequestBuilder};
use serde_json::Value;

use super::failure::{Code, Failure};
use super::{output, store};
use crate::clock::Millis;
use crate::config::{BridgeConfig, Secret};
use crate::protocol::Refusal;
use crate::trace::HEADER;
use crate::transport::connect::Way;

/// How long a person waits for an answer before a sentence is better.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a change, which may be one of a million messages.
const CHANGE_PATIENCE: Duration = Duration::from_mins(10);

/// Elements of a list that are asked for at once.
const PAGE: &str = "1000";

/// The file of the data directory that has the address of the running bridge.
pub const ENDPOINT_FILE: &str = "endpoint";

/// A page that every bridge has and no server.
const BRIDGE_PAGE: &str = "/api/openclaw/capabilities";

/// What gives the token of the bridge's own API.
const DASHBOARD_TOKEN: &str = "LOKI_DASHBOARD_TOKEN";

/// What gives the token of the server.
const SERVER_TOKEN: &str = "LOKI_OPENCLAW_AUTH_TOKEN";

/// Somebody who can be called.
pub struct Client {
    http: Http,
    base: String,
    token: Option<Secret>,
    /// The variable that gives the token.
    variable: &'static str,
    name: String,
    /// What it said to be missing from its store, each of which is told once; `None` when that is
    /// not for this person, as of the server of a bridge.
    told: Option<Mutex<BTreeSet<String>>>,
}

impl Client {
    /// The program that has the store of this configuration open: a bridge, or the server whose
    /// data directory this is. `None` when it is stopped, whatever address it left behind.
    ///
    /// # Errors
    /// When one has it open and tells no address.
    pub fn holder(config: &BridgeConfig) -> Result<Option<Self>, Failure> {
        let dir = &config.openclaw.data_dir;
        if !store::is_held(dir) {
            return Ok(None);
        }
        let base = address(dir)?;
        let token = config.dashboard.token.clone();
        let name = format!("the program that has {} open", dir.display());
        let (http, variable) = (client(&Way::default())?, DASHBOARD_TOKEN);
        Ok(Some(Self { http, base, token, variable, name, told: Some(Mutex::default()) }))
    }

    /// The running bridge of this configuration.
    ///
    /// # Errors
    /// When none is running, or a server has the data directory.
    pub async fn bridge(config: &BridgeConfig) -> Result<Self, Failure> {
        let dir = config.openclaw.data_dir.display();
        let Some(holder) = Self::holder(config)? else {
            let text = format!("no bridge is running in {dir}: start one with `loki start`");
            return Err(Failure::new(Code::Unreachable, text));
        };
        if !holder.is_of_bridge().await? {
            let text = format!("{dir} belongs to a server: name the data directory of a bridge");
            return Err(Failure::new(Code::Usage, text));
        }
        Ok(Self { name: "the bridge".to_owned(), ..holder })
    }

    /// Whether it is a bridge, and no server.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn is_of_bridge(&self) -> Result<bool, Failure> {
        match self.get(BRIDGE_PAGE, &[]).await {
            Err(failure) if failure.absent => Ok(false),
            answer => answer.map(|_| true),
        }
    }

    /// The server of this configuration.
    ///
    /// # Errors
    /// When none is configured.
    pub fn server(config: &BridgeConfig) -> Result<Self, Failure> {
        let bridge = &config.openclaw;
        let missing = "no server is configured: set LOKI_OPENCLAW_ENDPOINT or openclaw.endpoint";
        let base = bridge.endpoint.clone().ok_or_else(|| Failure::new(Code::Usage, missing))?;
        let way = Way::find(&base, &bridge.tls);
        let way = way.map_err(|text| Failure::new(Code::Usage, text))?;
        let token = bridge.auth_token.clone();
        let (variable, name) = (SERVER_TOKEN, "the server".to_owned());
        Ok(Self { http: client(&way)?, base, token, variable, name, told: None })
    }

    /// Asks for something. What the answer says to be missing is told and taken out of it, but for
    /// the audit log, whose pages are told together.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let request = self.http.request(Method::GET, self.url(path, query));
        let mut answer = self.call(request).await?.0;
        if let Some(told) = self.told.as_ref().filter(|_| !path.starts_with("/api/audit")) {
            let damage = output::take_damage(&mut answer);
            let mut told = told.lock();
            damage.iter().filter(|one| told.insert((*one).clone())).for_each(output::missing);
        }
        Ok(answer)
    }

    /// Asks for the whole of a list, page after page.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn all(&self, path: &str, name: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut query = vec![("limit", PAGE.to_owned())];
        loop {
            let mut answer = self.get(path, &query).await?;
            if let Value::Array(page) = answer[name].take() {
                all.extend(page);
            }
            let Some(next) = answer["next"].as_str() else { return Ok(all) };
            query.truncate(1);
            query.push(("after", next.to_owned()));
        }
    }

    /// As [`Client::get`], and also gives the time that the answer carries.
    ///
    /// # Errors
    /// When nobody answers, or the answer is another refusal.
    pub async fn dated(&self, path: &str) -> Result<(Value, Option<Millis>), Failure> {
        self.call(self.http.request(Method::GET, self.url(path, &[]))).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.url(path, &[])).json(body);
        Ok(self.call(request).await?.0)
    }

    /// As [`Client::post`], for something that belongs to a trace.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn post_traced(
        &self,
        path: &str,
        body: &Value,
        trace: Option<&str>,
    ) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.url(path, &[])).json(body);
        let request = match trace {
            Some(trace) => request.header(HEADER, trace),
            None => request,
        };
        Ok(self.call(request).await?.0)
    }

    /// Asks for a change of many things, and waits as long as that may take.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub async fn post_patiently(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.request(Method::POST, self.url(path, &[])).json(body);
        Ok(self.call(request.timeout(CHANGE_PATIENCE)).await?.0)
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> String {
        format!("{}{}", self.base.trim_end_matches('/'), target(path, query))
    }

    async fn call(&self, request: RequestBuilder) -> Result<(Value, Option<Millis>), Failure> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        let unreachable = |error: reqwest::Error| {
            let reason = reason(&error);
            let text = format!("cannot reach {} at {}: {reason}", self.name, self.base);
            Failure::new(Code::Unreachable, text)
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(http_date);
        let body = response.bytes().await.map_err(unreachable)?;
        if let Some(refusal) = Refusal::from_problem(&body).filter(|_| status >= 400) {
            let advice =
                if status == 401 { format!("; set {}", self.variable) } else { String::new() };
            return Err(refused(status, &(refusal.detail + &advice)));
        }
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status < 400 || (status == 503 && value.is_object()) {
            return Ok((value, date));
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

fn client(way: &Way) -> Result<Http, Failure> {
    let built = way.client().and_then(|builder| builder.timeout(PATIENCE).build());
    built.map_err(|error| Failure::new(Code::Unreachable, error.to_string()))
}

/// The address that the program in a data directory has written there.
fn address(dir: &Path) -> Result<String, Failure> {
    let path = dir.join(ENDPOINT_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let text = if error.kind() == ErrorKind::NotFound {
            let dir = dir.display();
            format!("a program has {dir} open and tells no address; try again in a moment")
        } else {
            format!("cannot read {}: {error}", path.display())
        };
        Failure::new(Code::Unreachable, text)
    })?;
    Ok(text.trim().to_owned())
}

/// The time of a `Date` header.
fn http_date(text: &str) -> Option<Millis> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(time.as_millisecond()).ok()
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

    #[test]
    fn the_time_of_an_answer_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date("yesterday"), None);
    }
}
