//! The stream of one partition of a node.

use crate::books::{Query, Seat};
use crate::session::Session;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A stream that is polled and dropped in the scope of its node's partition. Polls end with a safe
/// point, and with the query if it holds too much.
pub(crate) struct AccountedStream {
    /// Taken by the drop alone.
    inner: Option<SendableRecordBatchStream>,
    schema: SchemaRef,
    seat: Arc<Seat>,
    session: Arc<Session>,
    /// Last, so that what the stream has is freed when the query's report is made.
    query: Arc<Query>,
}

impl AccountedStream {
    pub(crate) fn new(
        inner: SendableRecordBatchStream,
        seat: Arc<Seat>,
        session: Arc<Session>,
        query: Arc<Query>,
    ) -> AccountedStream {
        AccountedStream {
            schema: inner.schema(),
            inner: Some(inner),
            seat,
            session,
            query,
        }
    }
}

impl Stream for AccountedStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(refusal) = self.query.refusal() {
            return Poll::Ready(Some(Err(refusal)));
        }
        let AccountedStream {
            inner,
            seat,
            session,
            ..
        } = &mut *self;
        let Some(inner) = inner else {
            return Poll::Ready(None);
        };
        let polled = seat.consumer.run(|| inner.as_mut().poll_next(context));
        seat.consumer.safe_point();
        session.between_polls();
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => (0, Some(0)),
        }
    }
}

impl RecordBatchStream for AccountedStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for AccountedStream {
    fn drop(&mut self) {
        let _scope = self.seat.consumer.enter();
        self.inner = None;
    }
}
