//! The server in the same process, for `--embedded`: on a free port of this machine, with a store
//! of its own. It is the same server as the program's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use storage::database::Database;

use crate::audit::sign::Signer;
use crate::cli::failure::{Code, Failure};
use crate::cli::store;
use crate::clock::Clock;
use crate::config::{Audit, StoreRules};
use crate::server::{Disk, Rules, Running, Server, ServerSettings};
use crate::shutdown::Shutdown;
use crate::upkeep;

/// A server that runs beside the bridge.
pub struct Embedded {
    running: Running,
    database: Database,
    signer: Signer,
}

impl Embedded {
    /// Starts it with its data in `<data-dir>/server`. When its store stops for good, so does the
    /// program.
    pub async fn start(
        data_dir: &Path,
        (rules, audit): (&StoreRules, &Audit),
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let dir = data_dir.join("server");
        store::make(&dir)?;
        let clock = Clock::system();
        let database = store::open(&dir, rules, &clock, shutdown)?;
        database.set_retention(upkeep::retention(rules, Rules::default().retention));
        database.set_audit_retention(audit.retention);
        let signer = super::sign(&database, &dir)?;
        let settings = ServerSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            store: database.store().clone(),
            clock,
            rules: Rules { audit: audit.clone(), ..Rules::default() },
            disk: Some(Disk::of(&database)),
        };
        let running = Server::start(settings).await;
        let running = running.map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
        Ok(Self { running, database, signer })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.running.url()
    }

    /// Ends it.
    pub async fn stop(self) -> Result<(), Failure> {
        self.running.stop().await;
        self.signer.finish();
        store::close(self.database)
    }
}
