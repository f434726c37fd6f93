//! Which proxy leads to a server, by the variables that every program honours, and a tunnel
//! through it. A server on this machine is never reached through one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer of a proxy to a request for a tunnel.
const ANSWER_BYTES_MAX: usize = 16 << 10;

const VARIABLES: [&str; 6] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"];

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(Url);

/// A variable names no proxy that can be used. The person who set it acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} names no proxy that can be used: write it as http://HOST:PORT")]
pub struct ProxyError {
    /// The variable.
    pub variable: &'static str,
}

/// The proxy for a server at this base URL, if these variables name one. Small letters come first,
/// as curl has it.
///
/// # Errors
/// When the one that counts is not `http://HOST:PORT`.
pub fn of_environment(
    endpoint: &str,
    variables: &BTreeMap<String, String>,
) -> Result<Option<Proxy>, ProxyError> {
    let Ok(server) = Url::parse(endpoint) else { return Ok(None) };
    let Some(host) = server.host_str() else { return Ok(None) };
    let names = match server.scheme() {
        "https" => ["https_proxy", "HTTPS_PROXY"],
        _ => ["http_proxy", "HTTP_PROXY"],
    };
    let set = |name: &'static str| {
        let value = variables.get(name).filter(|value| !value.trim().is_empty());
        value.map(|value| (name, value.trim()))
    };
    let Some((variable, value)) = names.into_iter().find_map(set) else { return Ok(None) };
    let without = ["no_proxy", "NO_PROXY"].into_iter().find_map(set).map_or("", |(_, list)| list);
    if is_loopback(host) || is_listed(host, server.port_or_known_default(), without) {
        return Ok(None);
    }
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let proxy = Url::parse(&text).ok();
    let usable = proxy.filter(|proxy| proxy.scheme() == "http" && proxy.has_host());
    usable.map(|proxy| Some(Proxy(proxy))).ok_or(ProxyError { variable })
}

/// As [`of_environment`], with the variables of this process.
///
/// # Errors
/// As [`of_environment`].
pub fn of_process(endpoint: &str) -> Result<Option<Proxy>, ProxyError> {
    let variables = VARIABLES.into_iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((name.to_owned(), value.to_string_lossy().into_owned()))
    });
    of_environment(endpoint, &variables.collect())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether a list as in `NO_PROXY` names a host: by itself, by a domain above it, by its network,
/// each perhaps with a port; `*` names all.
fn is_listed(host: &str, port: Option<u16>, list: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    list.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                (name, digits.parse().ok())
            }
            _ => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']).trim_start_matches(['*', '.']);
        let is_same = host == name || host.strip_suffix(name).is_some_and(|it| it.ends_with('.'));
        (is_same && wanted.is_none_or(|wanted: u16| Some(wanted) == port)) || is_in(&host, name)
    })
}

/// Whether an address lies in a network such as `10.0.0.0/8`.
fn is_in(host: &str, network: &str) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let parsed = || {
        let (base, length) = network.split_once('/')?;
        let (address, width) = bits(host.parse().ok()?);
        let (base, base_width) = bits(base.parse().ok()?);
        let length: u32 = length.parse().ok().filter(|length| *length <= width)?;
        let rest = width - length;
        Some(width == base_width && address.checked_shr(rest) == base.checked_shr(rest))
    };
    parsed().unwrap_or(false)
}

impl Proxy {
    /// Where it is, with its credentials: not for people.
    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// A connection to a host through it.
    ///
    /// # Errors
    /// When the proxy is not there, or does not open a tunnel.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let proxy = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port_of_proxy = self.0.port_or_known_default().unwrap_or(80);
        let mut stream = TcpStream::connect((proxy, port_of_proxy)).await.map_err(|error| {
            io::Error::new(error.kind(), format!("the proxy at {proxy} is not there: {error}"))
        })?;
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n");
        if let Some(credentials) = self.credentials() {
            request = format!("{request}proxy-authorization: Basic {credentials}\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let answer = head(&mut stream).await?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('2') {
            return Ok(stream);
        }
        Err(io::Error::other(format!("the proxy opens no tunnel: HTTP {status}")))
    }

    fn credentials(&self) -> Option<String> {
        let (user, password) = (self.0.username(), self.0.password().unwrap_or_default());
        let plain = |text: &str| percent_decoded(text);
        (!user.is_empty()).then(|| STANDARD.encode(format!("{}:{}", plain(user), plain(password))))
    }
}

/// The head of an answer. It is read byte by byte: what follows it belongs to the tunnel.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_BYTES_MAX {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        answer.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Text with `%41` for `A`, as user names stand in a URL.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok()).filter(|_| *first == b'%');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(endpoint: &str, variables: &[(&str, &str)]) -> Option<String> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables = variables.iter().map(pair).collect();
        let proxy = of_environment(endpoint, &variables).expect("a usable proxy");
        proxy.map(|proxy| proxy.url().to_string())
    }

    #[test]
    fn the_scheme_and_the_host_choose_the_proxy() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "p:2")];
        let with = |list| [both[0], both[1], ("NO_PROXY", list)];
        let (secure, plain) = (Some("http://s:1/"), Some("http://p:2/"));
        #[rustfmt::skip]
        let cases = [
            ("https://a.example", "", secure),
            ("http://a.example:8080", "", plain),
            ("http://localhost:8080", "", None),
            ("https://127.0.0.1", "", None),
            ("http://[::1]:80", "", None),
            ("https://a.example", "*", None),
            ("https://a.example", "a.example", None),
            ("https://a.example", "b.example, .example", None),
            ("https://a.example", "*.example", None),
            ("https://a.example", "ample", secure),
            ("https://a.example", "a.example:443", None),
            ("https://a.example", "a.example:8443", secure),
            ("https://10.1.2.3", "10.0.0.0/8", None),
            ("https://11.1.2.3", "10.0.0.0/8", secure),
            ("https://10.1.2.3", "fd00::/8", secure),
            ("https://[fd00::1]", "fd00::/8", None),
        ];
        for (endpoint, list, expected) in cases {
            assert_eq!(chosen(endpoint, &with(list)).as_deref(), expected, "{endpoint} {list}");
        }
        assert_eq!(chosen("https://a.example", &both[1..]), None);
        let small = [both[0], ("https_proxy", "http://first:1")];
        assert_eq!(chosen("https://a.example", &small).as_deref(), Some("http://first:1/"));
        assert_eq!(chosen("https://a.example", &[("HTTPS_PROXY", " ")]), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named_by_its_variable() {
        for value in ["socks5://p:1", "https://p:1", "http://"] {
            let variables = [("HTTPS_PROXY".to_owned(), value.to_owned())].into();
            let error = of_environment("https://a.example", &variables).expect_err(value);
            assert!(error.to_string().starts_with("HTTPS_PROXY names no proxy"), "{error}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_url() {
        let proxy = Proxy(Url::parse("http://me:p%40ss%3A1@p:1").expect("a url"));
        let expected = STANDARD.encode("me:p@ss:1");
        assert_eq!(proxy.credentials(), Some(expected));
        assert_eq!(Proxy(Url::parse("http://p:1").expect("a url")).credentials(), None);
    }
}
