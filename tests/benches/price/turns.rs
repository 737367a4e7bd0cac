//! What is compared is done in turn, each first as often as the other: who comes second finds caches warm, or a disk still at work.

use anyhow::Result;

/// Both, in an order that alternates with `number`.
pub(crate) async fn in_turn<T>(
    number: usize,
    ours: impl AsyncFnOnce() -> Result<T>,
    theirs: impl AsyncFnOnce() -> Result<T>,
) -> Result<(T, T)> {
    if number.is_multiple_of(2) {
        Ok((ours().await?, theirs().await?))
    } else {
        let theirs = theirs().await?;
        Ok((ours().await?, theirs))
    }
}
