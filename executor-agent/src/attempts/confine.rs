//! What is put around an attempt's agent, and around git in what it has left.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    life::Life,
    prepare::{Own, VIEW},
};
use crate::{
    accounts::Account,
    adapters,
    blocking::Blocking,
    host,
    sandbox::{Network, Sandbox},
    spec::Repository,
};

/// Where administrators keep the settings of executors.
const SETTINGS: &str = "/etc/sculpt";

/// Where names of hosts are looked up; often a link to where no system directory is.
const RESOLVER: &str = "/etc/resolv.conf";

impl Life<'_> {
    /// The sandbox of the agent; none where its account is enough. The error is the reason, for people, why it must not run.
    pub(super) fn around_agent(&self, own: Option<&Own>) -> Result<Option<Sandbox>, String> {
        let network = self.spec.confinement.network;
        let Some(bwrap) = self.context.separation.around(network)? else { return Ok(None) };
        let layout = &self.context.layout;
        let workspace = layout.workspace(self.handle.id);
        let prompt = Some(adapters::prompt_file(&workspace)).filter(|prompt| prompt.exists());
        let view = layout.sockets(self.handle.id).join(VIEW).parent().map(Path::to_owned);
        let borrowed = self.spec.repository.as_ref().and_then(|it| self.borrowed(it));
        Ok(Some(Sandbox {
            readable: borrowed.into_iter().chain(prompt).chain(resolver()).collect(),
            writable: [workspace].into_iter().chain(view).chain(own.map(|own| own.home.clone())).collect(),
            network,
            ..self.sandbox(bwrap)
        }))
    }

    /// The sandbox of a git that reads what the agent has left; none where there is only its account.
    pub(super) fn around_git(&self, repository: &Repository) -> Option<Sandbox> {
        let bwrap = self.context.separation.around_git()?;
        Some(Sandbox {
            readable: self.borrowed(repository).into_iter().collect(),
            writable: vec![self.context.layout.workspace(self.handle.id)],
            network: Network::None,
            ..self.sandbox(bwrap)
        })
    }

    /// The store that a workspace borrows from. An account of its own has that in its workspace, and cannot pass through the
    /// stores.
    fn borrowed(&self, repository: &Repository) -> Option<PathBuf> {
        (!self.context.separation.by_accounts()).then(|| self.context.layout.store(repository.project))
    }

    fn sandbox(&self, bwrap: &Path) -> Sandbox {
        let (context, layout) = (self.context, &self.context.layout);
        let sockets = layout.sockets(self.handle.id).parent().map(Path::to_owned);
        let hidden = [Some(layout.data().to_owned()), sockets, host::home(), Some(SETTINGS.into())];
        Sandbox {
            bwrap: bwrap.to_owned(),
            program: context.program.clone(),
            tools: context.settings.sandbox_tools.clone(),
            hidden: hidden.into_iter().flatten().collect(),
            ..Sandbox::default()
        }
    }

    /// What is the attempt's own of its account; none where it runs as the executor's.
    pub(super) async fn own(&self, account: Option<&Account>, work: &Blocking) -> io::Result<Option<Own>> {
        if let Some(account) = account {
            return Ok(Some(Own { home: account.home.clone(), name: Some(account.name.clone()) }));
        }
        if !self.context.separation.separates() {
            return Ok(None);
        }
        let home = self.private_home();
        let made = work.run(move |_| {
            // What an earlier try has left may be large.
            sculpt_walk::remove(&home)?;
            fs::DirBuilder::new().mode(0o700).create(&home)?;
            Ok(Some(Own { home, name: None }))
        });
        made.await.map_err(io::Error::other)?
    }

    /// The home directory of an attempt that has no account of its own.
    pub(super) fn private_home(&self) -> PathBuf {
        self.context.layout.homes().join(self.handle.id.to_string())
    }
}

/// The file that the resolver's settings lead to, where that is not among the system's directories.
fn resolver() -> Option<PathBuf> {
    fs::canonicalize(RESOLVER).ok().filter(|path| path.is_file() && !path.starts_with("/etc"))
}
