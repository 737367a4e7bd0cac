//! Executors: listed and looked at.

use sculpt_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, Replies, convert, person};

#[tonic::async_trait]
impl v1::executors_server::Executors for Api {
    type CollectGarbageStream = Replies<v1::CollectGarbageResponse>;

    async fn list_executors(
        &self,
        request: Request<v1::ListExecutorsRequest>,
    ) -> Result<Response<v1::ListExecutorsResponse>, Status> {
        person(&request)?;
        let executors = self.store.executors().await?.into_iter().map(convert::executor).collect();
        Ok(Response::new(v1::ListExecutorsResponse { executors }))
    }

    async fn get_executor(
        &self,
        request: Request<v1::GetExecutorRequest>,
    ) -> Result<Response<v1::GetExecutorResponse>, Status> {
        person(&request)?;
        let name = request.into_inner().executor;
        let mut found = self.store.executors_named(&name).await?;
        if found.len() > 1 {
            let problem =
                format!("{name:?} is the beginning of several executors' uuids; give more of it, or the name");
            return Err(Status::invalid_argument(problem));
        }
        let executor = found.pop().ok_or_else(|| {
            Status::not_found(format!("there is no executor {name:?}; `sculpt executor ls` lists those there are"))
        })?;
        Ok(Response::new(v1::GetExecutorResponse { executor: Some(convert::executor(executor)) }))
    }

    async fn adopt_attempts(
        &self,
        request: Request<v1::AdoptAttemptsRequest>,
    ) -> Result<Response<v1::AdoptAttemptsResponse>, Status> {
        person(&request)?;
        Err(Status::unimplemented("this controller cannot adopt attempts yet"))
    }

    async fn collect_garbage(
        &self,
        request: Request<v1::CollectGarbageRequest>,
    ) -> Result<Response<Self::CollectGarbageStream>, Status> {
        person(&request)?;
        Err(Status::unimplemented("this controller cannot have garbage collected yet"))
    }
}
