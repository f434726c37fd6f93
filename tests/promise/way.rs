//! The way to a server: through a proxy of the environment, and over TLS with certificates on both
//! sides.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::proxy::Proxy;
use crate::support::{Program, World, output};

const IDLE: &str = "agents:\n  - type: eng-qa\n    command: [\"true\"]\n    \
                    task_types: [testing]\n";

/// A bridge that connects with this transport and these variables.
fn bridge(world: &World, endpoint: &str, transport: &str, variables: &[(&str, &str)]) -> Program {
    let mut command = world.loki("one", endpoint);
    command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_AGENT_ID", "loki-one");
    command.env("LOKI_OPENCLAW_TRANSPORT", transport);
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    world.start(command, &world.path("one/.loki/openclaw"))
}

/// The status when the bridge is connected, or has said why it is not.
fn settled(world: &World, bridge: &Program) -> Value {
    let url = format!("{}/api/openclaw/status", bridge.address);
    let is_told = |status: &Value| status["connected"] == true || status["last_error"].is_string();
    world.wait("a session or an error", || world.get(&url).filter(is_told))
}

fn deliver(world: &World, bridge: &Program) {
    let entries = json!([{"key": "k", "value": 1}]);
    let body = json!({"message_type": "state_sync", "payload": {"entries": entries}});
    let (_, answer) =
        world.post(&format!("{}/api/openclaw/send", bridge.address), &body).expect("an answer");
    let id = answer["message_id"].as_str().expect("an id");
    let url = format!("{}/api/openclaw/messages/{id}", bridge.address);
    world.wait("a delivery", || world.get(&url).filter(|it| it["status"] == "delivered"));
}

#[test]
fn the_proxy_of_the_environment_leads_to_the_server_by_both_transports() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    // The proxy passes on the name that it was asked for.
    world.write(
        "server.yaml",
        "listen: 127.0.0.1:0\nheartbeat_interval: 1s\nhosts: [openclaw.test]\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-server"));
    command.arg("--data-dir").arg(world.path("server"));
    command.arg("--config").arg(world.path("server.yaml"));
    let server = world.start(command, &world.path("server"));
    let proxy = Proxy::start(&server.address, Box::new(|_| None));
    let wanted = [
        ("websocket", "CONNECT openclaw.test:9 HTTP/1.1"),
        ("http", "POST http://openclaw.test:9/messages HTTP/1.1"),
    ];
    for (transport, line) in wanted {
        // Only the proxy knows where this is.
        let variables = [("HTTP_PROXY", proxy.address.as_str())];
        let bridge = bridge(&world, "http://openclaw.test:9", transport, &variables);
        assert_eq!(settled(&world, &bridge)["connected"], true);
        deliver(&world, &bridge);
        let seen = proxy.seen();
        assert!(seen.iter().any(|first| first == line), "{line}: {seen:?}");
        assert_eq!(bridge.stop(), Some(0));
    }
    let before = proxy.seen().len();
    let variables = [("HTTP_PROXY", proxy.address.as_str())];
    let bridge = bridge(&world, &server.address, "http", &variables);
    assert_eq!(settled(&world, &bridge)["connected"], true);
    assert_eq!(proxy.seen().len(), before, "a server on this machine needs no proxy");
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

/// Certificates of one authority, as files of the world: `NAME-ca.pem`, and certificate and key of
/// a server at 127.0.0.1 and of an agent.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(world: &World, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        world.write(&format!("{name}-ca.pem"), &issuer.pem());
        Self { issuer }
    }

    fn issue(&self, world: &World, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        world.write(&format!("{name}.pem"), &certificate.pem());
        world.write(&format!("{name}-key.pem"), &key.serialize_pem());
        (certificate, key)
    }
}

/// Ends TLS with certificates on both sides, and passes what is in it on to `target`.
fn terminate(runtime: &Runtime, world: &World, authority: &Authority, target: &str) -> SocketAddr {
    let (certificate, key) = authority.issue(world, "server");
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).expect("an authority");
    let agents = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_client_cert_verifier(agents)
        .with_single_cert(vec![certificate.der().clone()], private)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let target = target.trim_start_matches("http://").to_owned();
    runtime.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            connections.spawn(async move {
                // Who is not let in sees it; there is nobody else to tell.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(target).await.expect("the server");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[test]
fn both_sides_show_certificates_by_both_transports() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    let server = world.server("server", 0);
    let runtime = Runtime::new().expect("a runtime");
    let (good, other) = (Authority::new(&world, "good"), Authority::new(&world, "other"));
    good.issue(&world, "agent");
    other.issue(&world, "stranger");
    let endpoint = format!("https://{}", terminate(&runtime, &world, &good, &server.address));
    let path = |name: &str| world.path(name).display().to_string();
    let run = |transport: &str, ca: &str, cert: Option<&str>| {
        let ca = path(&format!("{ca}-ca.pem"));
        let mut variables = vec![("LOKI_OPENCLAW_TLS_CA", ca.as_str())];
        let files =
            cert.map(|name| [path(&format!("{name}.pem")), path(&format!("{name}-key.pem"))]);
        if let Some([cert, key]) = &files {
            variables.extend([("LOKI_OPENCLAW_TLS_CERT", cert.as_str())]);
            variables.extend([("LOKI_OPENCLAW_TLS_KEY", key.as_str())]);
        }
        bridge(&world, &endpoint, transport, &variables)
    };
    for transport in ["websocket", "http"] {
        let welcome = run(transport, "good", Some("agent"));
        assert_eq!(settled(&world, &welcome)["connected"], true, "{transport}");
        deliver(&world, &welcome);
        let mut agents = world.loki("one", &endpoint);
        for (name, file) in [("CA", "good-ca"), ("CERT", "agent"), ("KEY", "agent-key")] {
            agents.env(format!("LOKI_OPENCLAW_TLS_{name}"), path(&format!("{file}.pem")));
        }
        let (code, stdout, said) = output(agents.args(["openclaw", "agents", "--json"]));
        assert!(code == Some(0) && stdout.contains("loki-one"), "{stdout}{said}");
        assert_eq!(welcome.stop(), Some(0));
        let refused = [("other", Some("agent")), ("good", None), ("good", Some("stranger"))];
        for (ca, cert) in refused {
            let bridge = run(transport, ca, cert);
            let status = settled(&world, &bridge);
            assert_eq!(status["connected"], false, "{transport} {ca} {cert:?}: {status}");
            assert_eq!(bridge.stop(), Some(0));
        }
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_file_that_is_no_certificate_is_named_at_the_start() {
    let world = World::new();
    world.write("one/.loki/config.yaml", IDLE);
    world.write("one/empty.pem", "nothing\n");
    for (file, reason) in [("missing.pem", "No such file"), ("empty.pem", "no certificate")] {
        let mut command = world.loki("one", "https://127.0.0.1:9");
        command.args(["start", "--openclaw"]).env("LOKI_OPENCLAW_TLS_CA", file);
        let (code, _, said) = output(&mut command);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("openclaw.tls.ca") && said.contains(file), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
