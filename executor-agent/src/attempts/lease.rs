//! The lease of an attempt that another one may replace: what its shim begins with, and how it is renewed.

use std::{future::pending, time::Duration};

use tokio::sync::watch;

use super::{Context, life::Life};
use crate::{
    host,
    shim::{Lease, Status},
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
}

/// What a shim is to be told of its lease.
pub(super) struct Renewals(Option<watch::Receiver<Option<Duration>>>);

impl Renewals {
    /// For a living shim that stands so, beginning with what is known; nothing for one without a lease.
    pub(super) fn new(context: &Context, status: &Status) -> Self {
        let leased = status.lease.is_some();
        Self(leased.then(|| {
            let mut news = context.lease.clone();
            news.mark_changed();
            news
        }))
    }

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
