//! Publishing: all chunks of a request go out together, and none waits for the answer to another.

use redis::{Cmd, Value};
use tokio::time::{Instant, timeout_at};

use super::batch::{Answer, Batch};
use super::{ANSWER_TIMEOUT, Commands, Link};
use crate::redis::link::Refusal;
use crate::redis::scripts::{self, By, Unexpected};
use crate::{PublishError, PublishItem, wall_clock_ms};

impl Commands {
    /// As [`Broker::publish`](crate::Broker::publish).
    ///
    /// Answers within [`ANSWER_TIMEOUT`], also while Redis does not.
    pub(crate) async fn publish(&self, items: Vec<PublishItem>) -> Vec<Answer> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut answers = vec![Err(PublishError::Unavailable); items.len()];
        if items.is_empty() || self.shared.link.lock().is_none() {
            return answers;
        }
        let promise = self.shared.renewals.promise();
        let batch = Batch::new(items, wall_clock_ms(), |item| {
            promise.is_due((&item.topic, item.retention.history_age))
        });
        let admission = self.shared.in_flight.admit(batch.bytes());
        let Ok(ticket) = timeout_at(deadline, admission).await else {
            return answers;
        };
        let Some(link) = self.link() else {
            ticket.settle(false);
            return answers;
        };
        let outcome = timeout_at(deadline, self.send(&link, &batch)).await;
        match outcome {
            Ok(Ok(replies)) => {
                ticket.settle(true);
                self.settle(&link, &batch, &replies, &mut answers);
            }
            // The bytes of a broken connection are gone; those of one that is only slow are not.
            Ok(Err(_)) => {
                ticket.settle(false);
                answers.fill(Err(PublishError::OutcomeUnknown));
            }
            Err(_) => answers.fill(Err(PublishError::OutcomeUnknown)),
        }
        if answers.iter().all(is_settled) {
            promise.keep();
        }
        answers
    }

    /// One reply for each chunk, which may be an error of Redis.
    async fn send(&self, link: &Link, batch: &Batch) -> redis::RedisResult<Vec<Value>> {
        let command = |by, chunk| -> Cmd {
            let runs = batch.runs(chunk, &self.shared.names);
            scripts::publish(by, link.fence(), self.shared.ttls, &runs)
        };
        let mut connection = link.connection.clone();
        if batch.chunks() == 1 {
            return Ok(vec![super::call(&mut connection, |by| command(by, 0)).await?]);
        }
        // Were the script unknown, the first chunks could fail and the later ones be done, if another node makes it
        // known in between. So the first one brings it along, and the others find it.
        let mut pipeline = redis::Pipeline::with_capacity(batch.chunks());
        pipeline.add_command(command(By::Text, 0));
        for chunk in 1..batch.chunks() {
            pipeline.add_command(command(By::Hash, chunk));
        }
        connection.send_packed_commands(&pipeline, 0, batch.chunks()).await
    }

    fn settle(&self, link: &Link, batch: &Batch, replies: &[Value], answers: &mut [Answer]) {
        for chunk in 0..batch.chunks() {
            let outcome = match replies.get(chunk) {
                Some(Value::ServerError(error)) => {
                    batch.settle_all(chunk, PublishError::Unavailable, answers);
                    Ok(Some(Refusal::from(error)))
                }
                reply => {
                    // What the reply does not answer for may have been done.
                    batch.settle_all(chunk, PublishError::OutcomeUnknown, answers);
                    reply.ok_or(Unexpected).and_then(scripts::publish_reply).and_then(
                        |(replication_id, lines)| {
                            self.correct(link, replication_id);
                            batch.settle(chunk, lines, answers)
                        },
                    )
                }
            };
            if let Some(refusal) = outcome.unwrap_or_else(|unexpected| Some(unexpected.into())) {
                self.shared.complaints.note("publish", &refusal);
            }
        }
    }
}

/// Has Redis done for the item what was to be done?
fn is_settled(answer: &Answer) -> bool {
    matches!(answer, Ok(_) | Err(PublishError::IdempotencyConflict))
}
