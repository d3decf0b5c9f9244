//! What a worker's fan-out has done, in numbers.

/// What the worker has done since it started, and what it holds. Plain numbers: the owner copies them to the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Publications handed to sockets.
    pub deliveries: u64,
    /// Publications that subscriptions in mode `latest` skipped.
    pub conflated: u64,
    /// Gap notices to slow consumers, and the publications they name.
    pub gaps_slow: Gaps,
    /// Gap notices to clients that resume from too far back, and the publications they name.
    pub gaps_expired: Gaps,
    /// Gap notices for publications that the broker lost, and the publications they name.
    pub gaps_lost: Gaps,
    /// Reset notices.
    pub resets: u64,
    /// Topics subscribed, by acknowledgement.
    pub subscribes_accepted: u64,
    /// Topics refused in an acknowledgement.
    pub subscribes_rejected: u64,
    /// Topics resumed with nothing missing.
    pub resumes_complete: u64,
    /// Publications that those resumes owed: what the clients had missed, or the newest of it in mode `latest`.
    pub resumes_replayed: u64,
    /// Topics resumed with a gap.
    pub resumes_gap: u64,
    /// Topics resumed with a reset.
    pub resumes_reset: u64,
}

/// Gap notices and the publications that they name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Notices sent.
    pub notices: u64,
    /// Publications named in them.
    pub publications: u64,
}
