//! Operations on the stack, the memo and the arena of containers, each counted against [`MAX_VALUES`].

use super::{MAX_VALUES, Machine, Node, Step, Value};

impl<'a> Machine<'a> {
    pub(super) fn object(&mut self) -> Step<()> {
        self.build(Node::Map { items: Vec::new(), state: Value::None })
    }

    pub(super) fn skip_and_push(&mut self, _skipped: &[u8]) -> Step<()> {
        self.push(Value::Opaque)
    }

    pub(super) fn build(&mut self, node: Node<'a>) -> Step<()> {
        self.charge(1)?;
        self.nodes.push(node);
        self.push(Value::Node(self.nodes.len() - 1))
    }

    pub(super) fn sequence_of(&mut self, values: Vec<Value<'a>>) -> Step<()> {
        self.charge(values.len())?;
        self.build(Node::Sequence(values))
    }

    /// Appends to the list on top of the stack; other objects discard the values.
    pub(super) fn append(&mut self, values: &[Value<'a>]) -> Step<()> {
        self.charge(values.len())?;
        if let Value::Node(index) = self.top()?
            && let Some(Node::Sequence(list)) = self.nodes.get_mut(index)
        {
            list.extend_from_slice(values);
        }
        Ok(())
    }

    /// Adds alternating keys and values to the object on top of the stack.
    pub(super) fn set_items(&mut self, keys_and_values: &[Value<'a>]) -> Step<()> {
        self.charge(keys_and_values.len())?;
        let (pairs, rest) = keys_and_values.as_chunks();
        if !rest.is_empty() {
            return Err("a key has no value".to_owned());
        }
        if let Value::Node(index) = self.top()?
            && let Some(Node::Map { items, .. }) = self.nodes.get_mut(index)
        {
            items.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    pub(super) fn memoise(&mut self, index: usize) -> Step<()> {
        self.charge(1)?;
        let top = self.top()?;
        // Picklers number consecutively from 0 or 1.
        if index > self.n_values {
            return Err(format!("memo index {index} is out of order"));
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        self.n_memoised += usize::from(self.memo[index].is_none());
        self.memo[index] = Some(top);
        Ok(())
    }

    pub(super) fn recall(&mut self, index: usize) -> Step<()> {
        let value = self.memo.get(index).copied().flatten();
        self.push(value.ok_or_else(|| format!("memo entry {index} is missing"))?)
    }

    pub(super) fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values on the stack"));
        }
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn charge(&mut self, n_values: usize) -> Step<()> {
        self.n_values = self.n_values.saturating_add(n_values);
        if self.n_values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    /// The top of the stack above the last mark.
    pub(super) fn top(&self) -> Step<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[_]>::last).copied().ok_or_else(|| "the stack is empty".to_owned())
    }

    pub(super) fn pop(&mut self) -> Step<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// POP, which also removes a mark if that is on top.
    pub(super) fn discard(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    pub(super) fn pop_to_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }
}
