//! How machines become executors of a stack: by a token for joining, as everywhere.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use sculpt_proto::{
    executor::v1::{Hello, JoinRequest, enrolment_client::EnrolmentClient},
    v1::CreateJoinTokenRequest,
};
use sculpt_tls::{Key, Proof, Server, Trust, client_config, connector};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::{Stack, checker::Secret};

/// How long a token for joining is good; it is used at once.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 300, nanos: 0 };

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who has joined, and by what.
#[derive(Debug, Default)]
pub(super) struct Enrolled(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What executors of the test's prove themselves by, by their ids.
    holders: BTreeMap<String, Arc<Holder>>,
    /// Data directories of executors that have one.
    directories: Vec<PathBuf>,
    /// All that were made.
    tokens: Vec<Secret>,
}

/// A key with its certificate.
#[derive(Debug)]
pub(super) struct Holder {
    key: Key,
    chain: Vec<Vec<u8>>,
}

impl Enrolled {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token_made(&self, token: &str) -> Result<()> {
        let mut known = self.known();
        let name = format!("token {}", known.tokens.len() + 1);
        known.tokens.push(Secret::token(name, token)?);
        Ok(())
    }

    pub(super) fn executor_made(&self, data: &Path) {
        self.known().directories.push(data.to_owned());
    }

    pub(super) fn tokens(&self) -> Vec<Secret> {
        self.known().tokens.clone()
    }

    pub(super) fn directories(&self) -> Vec<PathBuf> {
        self.known().directories.clone()
    }
}

impl Holder {
    fn proof(&self) -> Proof {
        Proof::new(self.chain.iter().cloned().map(Into::into).collect(), &self.key)
    }
}

/// A connection to `url` that believes those whom `trust` certifies, and shows `proof`. It is made on first use, and again
/// whenever it was lost.
pub(super) fn dial(url: String, trust: Trust, proof: Option<Proof>) -> Result<Channel> {
    let server = Server::Known(trust);
    let config = client_config(&server, proof).context("make settings of TLS")?;
    Ok(Endpoint::from_shared(url)?.connect_with_connector_lazy(connector(&server, config, PATIENCE)))
}

impl Stack {
    /// The authority of the controller.
    pub fn trust(&self) -> Result<Trust> {
        let path = self.data().join("controller/trust.pem");
        let pem = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Trust::from_pem(&pem)?)
    }

    /// A token by which one machine becomes an executor of `pool`.
    pub async fn join_token(&self, pool: &str) -> Result<String> {
        let request = CreateJoinTokenRequest {
            request_id: Uuid::new_v4().to_string(),
            pool: pool.to_owned(),
            ttl: Some(TTL),
            ..CreateJoinTokenRequest::default()
        };
        let answer =
            self.api().await?.executors.create_join_token(request).await.context("make a token for joining")?;
        let token = answer.into_inner().secret;
        self.token_made(&token)?;
        Ok(token)
    }

    /// Makes the executor on `data` one of the controller's, unless it belongs to a cluster.
    pub(super) async fn join(&self, data: &Path, name: &str) -> Result<()> {
        let identity = fs::read(data.join("executor.json")).unwrap_or_default();
        let identity = serde_json::from_slice::<serde_json::Value>(&identity).unwrap_or_default();
        if !identity["cluster_id"].is_null() {
            return Ok(());
        }
        if data != self.executor_data() {
            self.executor_made(data);
        }
        let (url, data) = (self.executor_url()?, data.to_string_lossy());
        let all = ["join", &url, "--token-file", "-", "--data-dir", &data, "--name", name];
        self.shell("sculpt-executor", all).stdin(self.join_token("default").await?).run().await?.done().map(drop)
    }

    /// Copies what makes the executor who it is, and nothing else, to the data directory `to`.
    pub fn copy_identity(&self, to: &Path) -> Result<()> {
        let keyring = to.join("identity");
        fs::create_dir_all(&keyring).context("make a place for a copied identity")?;
        fs::set_permissions(&keyring, fs::Permissions::from_mode(0o700))?;
        for file in ["executor.json", "identity/key.pem", "identity/certificate.pem", "identity/trust.pem"] {
            fs::copy(self.executor_data().join(file), to.join(file)).with_context(|| format!("copy {file}"))?;
        }
        self.executor_made(to);
        Ok(())
    }

    /// A connection by which who says `hello` proves to be that executor.
    pub(super) async fn proved(&self, hello: &Hello) -> Result<Channel> {
        let known = self.enrolled.known().holders.get(&hello.executor_id).cloned();
        let holder = match known {
            Some(holder) => holder,
            None => {
                let holder = Arc::new(self.enrol(hello).await?);
                self.enrolled.known().holders.insert(hello.executor_id.clone(), Arc::clone(&holder));
                holder
            }
        };
        dial(self.executor_url()?, self.trust()?, Some(holder.proof()))
    }

    async fn enrol(&self, hello: &Hello) -> Result<Holder> {
        let key = Key::fresh()?;
        let request = JoinRequest {
            token: self.join_token(&hello.pool).await?,
            certificate_request: key.request()?.to_vec(),
            join_id: Uuid::new_v4().to_string(),
            executor_id: hello.executor_id.clone(),
            name: hello.name.clone(),
            ..JoinRequest::default()
        };
        let stranger = dial(self.executor_url()?, self.trust()?, None)?;
        let joined = EnrolmentClient::new(stranger).join(request).await.context("join")?.into_inner();
        Ok(Holder { key, chain: joined.credentials.context("credentials in the answer")?.chain })
    }
}
