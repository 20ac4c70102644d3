//! Who waits for which response: ids given out on one hop, and what each stands for.

use std::collections::HashMap;

/// Requests sent to one peer under ids of our own, counting from 1.
#[derive(Debug)]
pub struct Pending<T> {
    next: u64,
    limit: usize,
    waiting: HashMap<u64, T>,
}

impl<T> Pending<T> {
    /// At most `limit` requests may wait at once.
    pub fn new(limit: usize) -> Pending<T> {
        Pending {
            next: 1,
            limit,
            waiting: HashMap::new(),
        }
    }

    /// Gives out the next id; hands `value` back where too many wait already.
    pub fn insert(&mut self, value: T) -> Result<u64, T> {
        if self.waiting.len() >= self.limit {
            return Err(value);
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, value);
        Ok(id)
    }

    /// Takes what waits under a raw id; `None` for ids that are unknown, not
    /// ours, or answered already.
    pub fn take(&mut self, raw_id: &str) -> Option<T> {
        let id = canonical(raw_id)?;
        self.waiting.remove(&id)
    }

    /// Takes what waits under an id that was given out.
    pub fn remove(&mut self, id: u64) -> Option<T> {
        self.waiting.remove(&id)
    }

    pub fn get(&self, raw_id: &str) -> Option<&T> {
        self.waiting.get(&canonical(raw_id)?)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.waiting.get_mut(&id)
    }

    /// The id under which something waits, oldest first.
    pub fn find(&self, mut wanted: impl FnMut(&T) -> bool) -> Option<u64> {
        let found = self.waiting.iter().filter(|(_, value)| wanted(value));
        found.map(|(id, _)| *id).min()
    }

    /// Takes all, oldest first.
    pub fn drain(&mut self) -> Vec<(u64, T)> {
        let mut all: Vec<_> = self.waiting.drain().collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }
}

/// Our ids are plain decimal numbers: `"1"` and `1.0` were never given out.
fn canonical(raw_id: &str) -> Option<u64> {
    let is_plain = !raw_id.is_empty() && raw_id.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { raw_id.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_that_were_given_out_are_known() {
        let mut pending = Pending::new(2);
        assert_eq!(pending.insert("a"), Ok(1));
        assert_eq!(pending.insert("b"), Ok(2));
        assert_eq!(pending.insert("c"), Err("c"));
        for wrong in ["\"1\"", "1.0", "3", "null", "18446744073709551617", ""] {
            assert_eq!(pending.take(wrong), None, "{wrong}");
        }
        assert_eq!(pending.take("1"), Some("a"));
        assert_eq!(pending.take("1"), None, "a second response finds nothing");
        assert_eq!(pending.insert("c"), Ok(3));
        assert_eq!(pending.drain(), [(2, "b"), (3, "c")]);
    }
}
