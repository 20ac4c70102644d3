//! What strangers can cause again and again is logged a few times a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(60);

/// Counts lines of a log of one kind.
#[derive(Debug)]
pub struct Seldom {
    times: u32,
    counted: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Seldom {
    /// So many times a minute.
    pub fn times(times: u32) -> Seldom {
        Seldom {
            times,
            counted: Mutex::new(Counted {
                since: None,
                told: 0,
                left_out: 0,
            }),
        }
    }

    /// Whether to say it now: `Some` with how many times it was not said before.
    pub fn tell(&self) -> Option<u64> {
        self.tell_at(Instant::now())
    }

    fn tell_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = counted.since.is_none_or(|since| now - since >= PERIOD);
        if is_over {
            counted.since = Some(now);
            counted.told = 0;
        }
        if counted.told >= self.times {
            counted.left_out += 1;
            return None;
        }
        counted.told += 1;
        Some(std::mem::take(&mut counted.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_a_few_times_a_minute_and_counted() {
        let seldom = Seldom::times(2);
        let now = Instant::now();
        let told: Vec<_> = (0..100).map(|_| seldom.tell_at(now)).collect();
        assert_eq!(told[..3], [Some(0), Some(0), None]);
        assert!(told[3..].iter().all(Option::is_none));
        let later = now + PERIOD;
        assert_eq!(seldom.tell_at(later), Some(98));
        assert_eq!(seldom.tell_at(later), Some(0));
        assert_eq!(seldom.tell_at(later), None);
    }
}
