//! The lease of an attempt that another one may replace: what its shim begins with, and how it is renewed.

use std::{future::pending, time::Duration};

use tokio::sync::watch;

use super::life::Life;
use crate::{
    host,
    shim::{Launch, Lease, Status},
};

impl Life<'_> {
    /// What the shim begins with. Waits for a lease that has not run out: another attempt may have begun otherwise.
    pub(super) async fn lease(&self) -> Option<Lease> {
        let lasts = self.spec.lease?;
        let mut news = self.context.lease.clone();
        news.mark_changed();
        loop {
            let lease = Lease { confirmed: confirmed(&mut news).await, lasts };
            if host::boottime() < lease.ends() {
                return Some(lease);
            }
        }
    }

    /// News of the lease for a living shim, beginning with what is known; none for one that has none.
    pub(super) fn renewals(&self, launch: &Launch, status: &Status) -> Renewals {
        let leased = launch.lease.is_some() && status.takes_leases();
        Renewals(leased.then(|| {
            let mut news = self.context.lease.clone();
            news.mark_changed();
            news
        }))
    }
}

/// What a shim is to be told of its lease.
pub(super) struct Renewals(Option<watch::Receiver<Option<Duration>>>);

impl Renewals {
    /// The next confirmation. A call that is dropped loses nothing.
    pub(super) async fn next(&mut self) -> Duration {
        match &mut self.0 {
            Some(news) => confirmed(news).await,
            None => pending().await,
        }
    }
}

async fn confirmed(news: &mut watch::Receiver<Option<Duration>>) -> Duration {
    loop {
        if news.changed().await.is_err() {
            // Without a sender the executor is ending.
            pending::<()>().await;
        }
        if let Some(confirmed) = *news.borrow_and_update() {
            return confirmed;
        }
    }
}
