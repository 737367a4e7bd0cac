//! `sculpt-executor join`: a token becomes a certificate.

use std::{
    io::{self, Read as _},
    path::PathBuf,
};

use sculpt_proto::executor::v1::{JoinRequest, enrolment_client::EnrolmentClient};
use sculpt_tls::{Kind, Meeting, Server, Token, TokenError, explain};
use tonic::Status;

use super::CredentialError;
use crate::{
    app::{AppError, Claimed},
    connect::{ConnectError, Dialer},
    host,
};

/// Flags of `sculpt-executor join`.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// Where the controller listens for executors, such as https://controller.example:7434
    pub url: String,
    /// File that holds the token, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Where attempts, workspaces and spools are to stand
    #[arg(long, env = "SCULPT_EXECUTOR_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Name shown to people; this machine's by default
    #[arg(long, env = "SCULPT_EXECUTOR_NAME")]
    pub name: Option<String>,
}

/// Why this machine did not become an executor.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token cannot be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none.
    #[error("the token in {}: {source}; ask for another one with `sculpt executor token`", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// It does not say whom to believe.
    #[error("the token in {} names no authority; ask for another one with `sculpt executor token`", .0.display())]
    NoPin(PathBuf),
    /// The data directory.
    #[error(transparent)]
    Claim(#[from] AppError),
    /// Key and certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The controller cannot be reached or believed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It has refused.
    #[error("the controller at {url} refuses: {}", .status.message())]
    Refused {
        /// Where.
        url: String,
        /// In its words.
        status: Status,
    },
}

impl JoinError {
    /// Whether it is a matter of who may, and not of what works.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Token { .. } | Self::NoPin(_) => true,
            Self::Refused { status, .. } => {
                matches!(status.code(), tonic::Code::PermissionDenied | tonic::Code::Unauthenticated)
            }
            Self::Connect(ConnectError::Distrust { .. }) => true,
            Self::TokenFile { .. } | Self::Claim(_) | Self::Credentials(_) | Self::Connect(_) => false,
        }
    }
}

/// Shows the token, hands the key's public half in, and keeps the certificate. Returns what there is to tell.
pub async fn join(args: JoinArgs) -> Result<String, JoinError> {
    let token = read_token(&args)?;
    let claimed = Claimed::open(&args.data_dir, false)?;
    let keyring = claimed.layout.keyring()?;
    let request = keyring.key()?.request().map_err(CredentialError::from)?;
    // The listener for executors shows nothing but our own authority.
    let pin = token.pin.ok_or_else(|| JoinError::NoPin(args.token_file.clone()))?;
    let dialer = Dialer::unproved(&args.url, Server::Pinned(Meeting::new(pin)))?;
    let request = JoinRequest {
        token: token.reveal(),
        certificate_request: request.to_vec(),
        join_id: keyring.pending()?.to_string(),
        executor_id: claimed.identity.executor_id.to_string(),
        name: args.name.unwrap_or_else(host::hostname),
        hostname: host::hostname(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: claimed.identity.cluster_id.map(|cluster| cluster.to_string()).unwrap_or_default(),
    };
    let refused = |status: Status| match explain(&status) {
        Some(problem) => ConnectError::Distrust { url: args.url.clone(), problem }.into(),
        None => JoinError::Refused { url: args.url.clone(), status },
    };
    let channel = dialer.channel().await?;
    let answer = EnrolmentClient::new(channel).join(request).await.map_err(refused)?.into_inner();
    let credentials = answer.credentials.as_ref().ok_or(CredentialError::Answer("no credentials"))?;
    let kept = keyring.keep(credentials)?;
    keyring.answered()?;
    claimed.belongs_to(kept.subject, &args.url)?;
    Ok(format!(
        "{} has joined cluster {} in pool {}; start it with `sculpt-executor run --data-dir {}`",
        answer.name,
        kept.subject.cluster,
        answer.pool,
        args.data_dir.display()
    ))
}

fn read_token(args: &JoinArgs) -> Result<Token, JoinError> {
    let path = &args.token_file;
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|source| JoinError::TokenFile { path: path.clone(), source })?;
    Token::parse(&text, Kind::Join).map_err(|source| JoinError::Token { path: path.clone(), source })
}
