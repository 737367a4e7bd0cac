//! `sculpt-executor join`: a token becomes a certificate.
//!
//! Nothing is made before the controller has proved that it is the one of the token. Then the key is on disk before it is
//! asked for, and the join's id follows from key and token: whoever repeats a join whose answer was lost asks for the same
//! thing, which uses no token up a second time.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sculpt_proto::executor::v1::{JoinRequest, JoinResponse, enrolment_client::EnrolmentClient};
use sculpt_tls::{Key, Kind, Matter, Meeting, Pin, Secret, Server, Token, TokenError, explain};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

use super::{CredentialError, Credentials, Keyring};
use crate::{
    app::{AppError, Claimed, Identity},
    config,
    connect::{ConnectError, Dialer},
    host,
    text::plain,
};

/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any file with a token.
const LONGEST: u64 = 4 << 10;

/// Flags of `sculpt-executor join`.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// Where the controller listens for executors, such as https://controller.example:7434
    pub url: String,
    /// File that holds the token, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Where attempts, workspaces and spools are to stand
    /// [default: /var/lib/sculpt/executor as root, else below the XDG data directory]
    #[arg(long, env = "SCULPT_EXECUTOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name shown to people; this machine's by default
    #[arg(long, env = "SCULPT_EXECUTOR_NAME")]
    pub name: Option<String>,
    /// Join although this executor has joined the same controller before: into another pool, or when that has forgotten it,
    /// or is certified by an authority that this executor has not learnt of
    #[arg(long)]
    pub again: bool,
}

/// Why this machine did not become an executor.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token cannot be read.
    #[error("cannot read the token from {}: {source}", named(path))]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none.
    #[error(
        "cannot use the token from {}: {source}; {}`sculpt executor token` makes another one",
        named(path),
        other_use(source)
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// There is nothing.
    #[error("cannot use the token from {}: it is empty", named(.0))]
    NoToken(PathBuf),
    /// It does not say whom to believe.
    #[error("the token from {} names no authority; `sculpt executor token` makes one that does", named(.0))]
    NoPin(PathBuf),
    /// There is no place for what is kept.
    #[error("there is no place for data: neither HOME nor XDG_DATA_HOME is set. Give --data-dir")]
    NoPlace,
    /// It is an executor of this controller.
    #[error(
        "the executor in {data} has joined this controller before ({controller}). `sculpt-executor run --data-dir {data}` \
         starts it; --again uses the token to join anew, and another --data-dir makes one executor more"
    )]
    Already {
        /// The data directory.
        data: String,
        /// Where.
        controller: String,
    },
    /// It is an executor of another controller, or of one whose authority it does not know.
    #[error(
        "the executor in {data} has joined {controller}, and does not know the authority of the token. If another authority has \
         taken over there while it was away, --again joins anew. If the token is of another controller, give another \
         --data-dir for one executor more, or let this one forget that controller: `sculpt-executor rebind --data-dir {data}`"
    )]
    Elsewhere {
        /// The data directory.
        data: String,
        /// Where it belongs.
        controller: String,
    },
    /// The data directory.
    #[error(transparent)]
    Claim(Box<AppError>),
    /// Key and certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The controller cannot be reached or believed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It has refused.
    #[error("the controller at {url} refuses: {}", plain(.status.message()))]
    Refused {
        /// Where.
        url: String,
        /// In its words.
        status: Status,
    },
    /// It may have agreed.
    #[error(
        "the controller at {url} gave no answer: {why}. Run the same command with the same token again: if it was taken, \
         it is not used up a second time"
    )]
    Lost {
        /// Where.
        url: String,
        /// What came instead.
        why: String,
    },
}

impl From<AppError> for JoinError {
    fn from(error: AppError) -> Self {
        Self::Claim(Box::new(error))
    }
}

impl JoinError {
    /// The exit code that scripts go by, the same as those of `sculpt`.
    pub fn exit_code(&self) -> u8 {
        const FAILED: u8 = 1;
        const CONFLICT: u8 = 7;
        const BAD_INPUT: u8 = 64;
        const OUT_OF_REACH: u8 = 69;
        const NOT_ALLOWED: u8 = 77;
        match self {
            Self::Token { .. } | Self::NoToken(_) | Self::NoPin(_) => NOT_ALLOWED,
            Self::TokenFile { .. } | Self::NoPlace => BAD_INPUT,
            Self::Already { .. } | Self::Elsewhere { .. } => CONFLICT,
            Self::Claim(error) => match **error {
                AppError::Locked { .. } | AppError::Stranger(_) => CONFLICT,
                _ => FAILED,
            },
            Self::Credentials(_) => FAILED,
            Self::Lost { .. } => OUT_OF_REACH,
            Self::Connect(error) => match error {
                ConnectError::Url { .. } => BAD_INPUT,
                ConnectError::Distrust { problem, .. } => match problem.matter {
                    Matter::Authority | Matter::Own | Matter::Clock => NOT_ALLOWED,
                    Matter::Address => OUT_OF_REACH,
                },
                ConnectError::Name { .. } | ConnectError::Dial { .. } => OUT_OF_REACH,
                ConnectError::Security { .. } => FAILED,
            },
            Self::Refused { status, .. } => match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => NOT_ALLOWED,
                Code::AlreadyExists | Code::FailedPrecondition => CONFLICT,
                // It may be well, and not where machines join.
                Code::InvalidArgument | Code::Unimplemented => BAD_INPUT,
                _ => FAILED,
            },
        }
    }
}

/// What a token is for that no machine joins with.
fn other_use(error: &TokenError) -> &'static str {
    match error {
        TokenError::Kind { .. } => "`sculpt login` takes that one, where a person works; ",
        TokenError::Foreign | TokenError::Damaged => "",
    }
}

/// How a file is named to people.
fn named(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

/// Shows the token, hands the key's public half in, and keeps the certificate. Returns what there is to tell.
pub async fn join(args: JoinArgs) -> Result<String, JoinError> {
    let data_dir = args.data_dir.clone().or_else(config::default_data_dir).ok_or(JoinError::NoPlace)?;
    let (token, pin) = read_token(&args.token_file)?;
    admit(&data_dir, joined(&data_dir)?.as_ref(), pin, args.again)?;
    let dialer = Dialer::unproved(&args.url, Server::Pinned(Meeting::new(pin)))?;
    let channel = dialer.channel().await?;
    let claimed = Claimed::open(&data_dir, false)?;
    let keyring = claimed.layout.keyring()?;
    let answer = ask(&args, &claimed, &keyring, &token, channel).await;
    if answer.as_ref().is_err_and(JoinError::is_final) {
        keyring.forget_unused_key()?;
    }
    let answer = answer?;
    let wire = answer.credentials.as_ref().ok_or(CredentialError::Answer("no credentials"))?;
    let credentials = Credentials::answered(keyring.key()?, wire)?;
    claimed.is_meant(credentials.subject)?;
    keyring.keep(&credentials)?;
    let told = format!(
        "{} has joined cluster {} in pool {}; start it with `sculpt-executor run --data-dir {}`",
        answer.name,
        credentials.subject.cluster,
        answer.pool,
        data_dir.display()
    );
    claimed.joined(credentials.subject, dialer.url(), answer)?;
    claimed.layout.tidy();
    Ok(told)
}

impl JoinError {
    /// Whether the controller has certainly not certified the key, now or when an answer was lost: who does not look at the
    /// token has not looked whether it was taken before.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(
                status.code(),
                Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::AlreadyExists
                    | Code::FailedPrecondition
                    | Code::InvalidArgument
            ),
            _ => false,
        }
    }
}

/// What an executor that has joined has of it.
struct Joined {
    credentials: Credentials,
    controller: String,
}

/// The executor of `data_dir`, if it has joined; nothing is made or changed.
fn joined(data_dir: &Path) -> Result<Option<Joined>, JoinError> {
    let Some(identity) = Identity::read(data_dir)? else { return Ok(None) };
    let (Some(_), Some(controller)) = (identity.cluster_id, identity.controller) else { return Ok(None) };
    match Keyring::at(data_dir).load() {
        Ok(credentials) => Ok(Some(Joined { credentials, controller })),
        Err(CredentialError::NotJoined(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a token of the authority `pin` may be shown for what is in `data_dir`. An authority that is not known here may be
/// that of the same controller: the token proves it, and the cluster in the answer decides.
fn admit(data_dir: &Path, joined: Option<&Joined>, pin: Pin, again: bool) -> Result<(), JoinError> {
    let Some(Joined { credentials, controller }) = joined else { return Ok(()) };
    let (data, controller) = (data_dir.display().to_string(), controller.clone());
    match (credentials.trust.pins().any(|known| known == pin), again) {
        (_, true) => Ok(()),
        (true, false) => Err(JoinError::Already { data, controller }),
        (false, false) => Err(JoinError::Elsewhere { data, controller }),
    }
}

async fn ask(
    args: &JoinArgs,
    claimed: &Claimed,
    keyring: &Keyring,
    token: &Token,
    channel: Channel,
) -> Result<JoinResponse, JoinError> {
    let key = keyring.key()?;
    let request = JoinRequest {
        token: token.reveal(),
        certificate_request: key.request().map_err(CredentialError::from)?.to_vec(),
        join_id: join_id(&token.secret, &key).to_string(),
        executor_id: claimed.identity.executor_id.to_string(),
        name: args.name.clone().unwrap_or_else(host::hostname),
        hostname: host::hostname(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: claimed.identity.cluster_id.map(|cluster| cluster.to_string()).unwrap_or_default(),
    };
    sculpt_failpoints::pass("join.before_ask");
    let mut client = EnrolmentClient::new(channel);
    let answer = tokio::time::timeout(PATIENCE, client.join(request)).await;
    sculpt_failpoints::pass("join.answered");
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&args.url, status)),
        Err(_) => Err(JoinError::Lost { url: args.url.clone(), why: format!("it took more than {PATIENCE:?}") }),
    }
}

/// Belongs to this token in the hands of who has this key: the same whenever it is asked.
fn join_id(token: &Secret, key: &Key) -> Uuid {
    let digest = Sha256::new().chain_update(token.digest()).chain_update(key.public()).finalize();
    let (bytes, _) = digest.as_slice().split_first_chunk().unwrap_or((&[0; 16], &[]));
    uuid::Builder::from_random_bytes(*bytes).into_uuid()
}

fn refused(url: &str, status: Status) -> JoinError {
    let url = url.to_owned();
    match explain(&status) {
        Some(problem) => ConnectError::Distrust { url, problem }.into(),
        None if decides(status.code()) => JoinError::Refused { url, status },
        None => JoinError::Lost { url, why: plain(status.message()) },
    }
}

/// Whether a status is the controller's word, and not that of a broken connection or a database that is away.
const fn decides(code: Code) -> bool {
    match code {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

fn read_token(path: &Path) -> Result<(Token, Pin), JoinError> {
    use io::Read as _;
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    let wrong = |source| JoinError::Token { path: path.to_owned(), source };
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(wrong(TokenError::Foreign)),
        Err(source) => return Err(JoinError::TokenFile { path: path.to_owned(), source }),
    }
    if text.trim().is_empty() {
        return Err(JoinError::NoToken(path.to_owned()));
    }
    let token = Token::parse(&text, Kind::Join).map_err(wrong)?;
    let pin = token.pin.ok_or_else(|| JoinError::NoPin(path.to_owned()))?;
    Ok((token, pin))
}
