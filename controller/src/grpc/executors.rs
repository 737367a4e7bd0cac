//! Executors: listed, looked at, enrolled and removed.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{Stream, stream};
use sculpt_proto::{
    FieldError,
    id::{AttemptId, ExecutorId},
    required, v1,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Request, Response, Status};

use super::{
    Api, POLL, Replies, caller, convert, enrolment,
    once::{once, once_of},
    request_id, status,
};
use crate::{
    access::{Fleet, May, Sees},
    session::garbage::{self, Ask, Piece},
    store::{
        adopt::Adoption,
        audit::{self, Act},
        executors::Executor,
        requests,
    },
};

/// How long an executor may take to hand in what is to be adopted, before its caller is told so.
const HAND_IN: Duration = Duration::from_secs(20);

/// How long an executor may take to count or remove what nobody needs.
const ANSWER: Duration = Duration::from_secs(600);

/// Attempts that one call may name.
const MOST_NAMED: usize = 1000;

#[tonic::async_trait]
impl v1::executors_server::Executors for Api {
    type CollectGarbageStream = Replies<v1::CollectGarbageResponse>;

    async fn list_executors(
        &self,
        request: Request<v1::ListExecutorsRequest>,
    ) -> Result<Response<v1::ListExecutorsResponse>, Status> {
        let sees = caller(&request)?.sees();
        let executors = self.store.executors(&sees).await?.into_iter().map(convert::executor).collect();
        Ok(Response::new(v1::ListExecutorsResponse { executors }))
    }

    async fn get_executor(
        &self,
        request: Request<v1::GetExecutorRequest>,
    ) -> Result<Response<v1::GetExecutorResponse>, Status> {
        let sees = caller(&request)?.sees();
        let executor = self.executor_named(&sees, &request.into_inner().executor).await?;
        Ok(Response::new(v1::GetExecutorResponse { executor: Some(convert::executor(executor)) }))
    }

    async fn adopt_attempts(
        &self,
        request: Request<v1::AdoptAttemptsRequest>,
    ) -> Result<Response<v1::AdoptAttemptsResponse>, Status> {
        let caller = caller(&request)?;
        let by: May<Fleet> = caller.may()?;
        let message = request.into_inner();
        let id = request_id(&message.request_id)?;
        let attempts = named(&message.attempts)?;
        let executor = self.executor_named(&caller.sees(), &message.executor).await?;
        if executor.liveness != "connected" {
            let problem = format!(
                "executor {} is {}, and nothing can be handed in by it until it is back; its attempts go on meanwhile",
                executor.name, executor.liveness
            );
            return Err(Status::failed_precondition(problem));
        }
        let request = requests::Request { id, method: "AdoptAttempts", digest: digest(&executor, &attempts) };
        self.store.want_adoptions(by.clone(), request.clone(), ExecutorId(executor.id), attempts).await?;
        let attempts = self.adopted(&by, &request, &executor).await?;
        Ok(Response::new(v1::AdoptAttemptsResponse { attempts }))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        let caller = caller(&request)?;
        let by: May<Fleet> = caller.may()?;
        let wanted = request.into_inner();
        let executor = self.executor_named(&caller.sees(), &wanted.executor).await?;
        let (answer, pieces) = mpsc::channel(garbage::PIECES);
        let ask = Ask { dry_run: wanted.dry_run, all: wanted.all, answer };
        if !self.sessions.ask(ExecutorId(executor.id), ask) {
            let problem = format!(
                "executor {} cannot be asked now: it is {}, or others ask it already. Ask again when `sculpt executor ls` \
                 shows it connected; its own sweep goes on meanwhile",
                executor.name, executor.liveness
            );
            return Err(Status::failed_precondition(problem));
        }
        if !wanted.dry_run {
            let act = Act::new("executor.collect", audit::executor(&executor.name));
            self.store.tell(&by, act.with(json!({ "all": wanted.all }))).await?;
        }
        Ok(Response::new(self.replies(answers(pieces))))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let by = caller(&request)?.may()?;
        self.new_join_token(by, request.into_inner()).await.map(Response::new)
    }

    async fn list_join_tokens(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensResponse>, Status> {
        let by = caller(&request)?.may()?;
        let tokens = self.store.join_tokens(&by).await?.into_iter().map(enrolment::join_token).collect();
        Ok(Response::new(v1::ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::RevokeJoinTokenResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once(&message.request_id, "RevokeJoinToken", &message.token)?;
        let token = self.store.revoke_join_token(by, request, message.token).await?;
        self.bus.access();
        Ok(Response::new(v1::RevokeJoinTokenResponse { token: Some(enrolment::join_token(token)) }))
    }

    async fn remove_executor(
        &self,
        request: Request<v1::RemoveExecutorRequest>,
    ) -> Result<Response<v1::RemoveExecutorResponse>, Status> {
        let caller = caller(&request)?;
        let by = caller.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "RemoveExecutor", |message| &mut message.request_id)?;
        if self.store.repeated(&request).await?.is_some() {
            // Nobody is shown who was removed.
            return Ok(Response::new(v1::RemoveExecutorResponse { executor: None }));
        }
        let executor = self.executor_named(&caller.sees(), &message.executor).await?;
        let id = ExecutorId(executor.id);
        for moved in self.store.remove_executor(by, request, id, message.force).await? {
            self.dispatch.after_commit(&moved);
        }
        self.bus.access();
        self.bus.journal();
        Ok(Response::new(v1::RemoveExecutorResponse { executor: Some(convert::executor(executor)) }))
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let by = caller(&request)?.may()?;
        let pools = self.store.pools(&by).await?.into_iter().map(enrolment::pool).collect();
        Ok(Response::new(v1::ListPoolsResponse { pools }))
    }

    async fn set_pool(&self, request: Request<v1::SetPoolRequest>) -> Result<Response<v1::SetPoolResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let wish = required(message.pool, "pool")?;
        let request = once(&message.request_id, "SetPool", &wish)?;
        let pool = self.store.set_pool(by, request, enrolment::wished_pool(wish)?).await?;
        // Placement looks again, and so do those who show why a task waits.
        self.bus.access();
        Ok(Response::new(v1::SetPoolResponse { pool: Some(enrolment::pool(pool)) }))
    }

    async fn remove_pool(
        &self,
        request: Request<v1::RemovePoolRequest>,
    ) -> Result<Response<v1::RemovePoolResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once(&message.request_id, "RemovePool", &message.pool)?;
        let pool = self.store.remove_pool(by, request, enrolment::plain(message.pool, "pool")?).await?;
        self.bus.access();
        Ok(Response::new(v1::RemovePoolResponse { pool: pool.map(enrolment::pool) }))
    }
}

impl Api {
    async fn executor_named(&self, sees: &Sees, name: &str) -> Result<Executor, Status> {
        let mut found = self.store.executors_named(sees, name).await?;
        if found.len() > 1 {
            let problem =
                format!("{name:?} is the beginning of several executors' uuids; give more of it, or the name");
            return Err(Status::invalid_argument(problem));
        }
        found.pop().ok_or_else(|| {
            Status::not_found(format!("there is no executor {name:?}; `sculpt executor ls` lists those there are"))
        })
    }

    /// Waits until everything that `request` asked for is adopted or refused, or [`HAND_IN`] is over.
    async fn adopted(
        &self,
        by: &May<Fleet>,
        request: &requests::Request,
        executor: &Executor,
    ) -> Result<Vec<v1::AdoptedAttempt>, Status> {
        // Each adoption and each refusal stands in the journal.
        let mut moved = self.bus.journal_moved();
        self.bus.tell(ExecutorId(executor.id));
        let deadline = Instant::now() + HAND_IN;
        loop {
            moved.mark_unchanged();
            let found = self.store.adoptions(by, request).await?;
            if found.iter().all(Adoption::settled) || Instant::now() >= deadline {
                return Ok(found.into_iter().map(|adoption| shown(adoption, &executor.name)).collect());
            }
            let poll = deadline.min(Instant::now() + POLL);
            // A poll repairs a lost signal.
            if let Ok(changed) = timeout_at(poll, moved.changed()).await {
                changed.map_err(|_| status::shutting_down())?;
            }
        }
    }
}

/// An answer in pieces, and an error in the place of its end when it does not come.
fn answers(
    pieces: mpsc::Receiver<Piece>,
) -> impl Stream<Item = Result<v1::CollectGarbageResponse, Status>> + Send + 'static {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match timeout(ANSWER, pieces.recv()).await {
            Ok(Some(Piece { items, last })) => {
                Some((Ok(v1::CollectGarbageResponse { items }), (!last).then_some(pieces)))
            }
            Ok(None) => Some((Err(Status::unavailable("the executor's session ended before it had answered")), None)),
            Err(_) => Some((Err(Status::deadline_exceeded("the executor did not answer within 10 minutes")), None)),
        }
    })
}

fn named(attempts: &[String]) -> Result<BTreeSet<AttemptId>, FieldError> {
    if attempts.len() > MOST_NAMED {
        let problem = format!("names {}; at most {MOST_NAMED} are taken, or none for all there are", attempts.len());
        return Err(FieldError::new("attempts", problem));
    }
    attempts.iter().map(|attempt| FieldError::parse(attempt, "attempts")).collect()
}

fn digest(executor: &Executor, attempts: &BTreeSet<AttemptId>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(executor.id);
    attempts.iter().for_each(|attempt| hash.update(attempt.0));
    hash.finalize().into()
}

fn shown(adoption: Adoption, executor: &str) -> v1::AdoptedAttempt {
    let late = || {
        format!(
            "executor {executor} has not handed it in within {} s; it is taken over as soon as it does",
            HAND_IN.as_secs()
        )
    };
    v1::AdoptedAttempt {
        attempt_id: adoption.attempt.to_string(),
        task_number: adoption.task.unwrap_or_default(),
        refusal: match (adoption.task, adoption.refusal) {
            (Some(_), _) => String::new(),
            (None, refusal) => refusal.unwrap_or_else(late),
        },
    }
}
