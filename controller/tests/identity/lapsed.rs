//! A certificate that runs out: only its renewal is left.

use std::time::Duration;

use sculpt_proto::{executor::v1::reject, v1};
use tonic::Code;
use uuid::Uuid;

use super::{dial, ready, run, shown};
use crate::{harness, sessions::executor::hello};

/// Short enough to see its end, and long enough to get something done.
const LIFE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_certificate_only_when_that_is_renewed() {
    let stack = harness::stack_with(|config| config.certificate_life = LIFE).await;
    let (who, other) = (hello("one"), hello("two"));
    let (enrolled, neighbour) = (stack.enrol(&who).await, stack.enrol(&other).await);
    let mut executor = ready(&stack, &enrolled, &who).await;
    let beside = ready(&stack, &neighbour, &other).await;
    let epoch = shown(&stack, "two").await.epoch;
    // By one that is good for longer.
    let renewed = stack.renew(&neighbour, Uuid::new_v4()).await.expect("it is renewed");
    run(&stack, "UPDATE executors SET certified_until = now() + interval '1 day' WHERE name = 'two'").await;

    let told = executor.rejected().await;
    assert!(told.retry_after.is_some() && told.text.contains("has run out"), "{told:?}");
    assert_eq!(told.code(), reject::Code::Renew, "whatever its own clock says");
    // Its connection was made while the certificate was good; that counts no longer.
    assert_eq!(executor.spec(&Uuid::new_v4().to_string()).await, Err(Code::Unavailable));
    let told = dial(&stack, &enrolled, &who).await.rejected().await;
    assert!(told.text.contains("has run out"), "{told:?}");
    let back = stack.renew(&enrolled, Uuid::new_v4()).await.expect("it is good for that");
    ready(&stack, &back, &who).await;

    // The other has renewed in time, and its session has never ended.
    assert_eq!(renewed.subject().generation, 2);
    beside.observe(vec![]).await;
    let listed = stack.executors().list_executors(v1::ListExecutorsRequest {}).await.expect("a list").into_inner();
    let two = listed.executors.into_iter().find(|executor| executor.name == "two").expect("it is there");
    assert_eq!((two.epoch, two.liveness.as_str()), (epoch, "connected"));
    stack.stop().await;
}
