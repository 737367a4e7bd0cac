//! The schema and its partitions.

use sculpt_controller::store::migrate;

use crate::harness;

#[tokio::test]
async fn migrations_run_once_even_when_two_begin_together() {
    let fresh = harness::bare_database().await;
    let (first, second) = tokio::join!(migrate(&fresh.database), migrate(&fresh.database));
    first.expect("the first brings it up to date");
    second.expect("the second finds it so");
    migrate(&fresh.database).await.expect("again changes nothing");
}
