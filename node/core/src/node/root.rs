//! The root, where it speaks through a door: its words were typed there, and only what it signed comes
//! in.

use weft_protocol::{audit::Body, host_call::Refusal, signed::Signed};
use weft_trust::graph::statement_id;

use super::{After, Batch, Node};
use crate::{
    Context,
    door::{DoorId, Reply},
};

impl Node {
    /// Takes what the root said. The door is answered when that is on the disk.
    pub(super) fn take_statements(
        &mut self,
        door: DoorId,
        statements: Vec<Signed>,
        context: Context<'_>,
    ) {
        let root = self.membership.state().root;
        let is_known = |signed: &Signed| self.membership.graph().contains(&statement_id(signed));
        let refused = if !root.is_some_and(|root| statements.iter().any(|it| it.author == root.key))
        {
            Some("none of that is said by the root of this fabric")
        } else if statements.iter().all(is_known) {
            Some("all of that was said before")
        } else if self.membership.take(statements) == 0 {
            Some("what was said does not fit what this device knows by now; say it again")
        } else {
            None
        };
        for output in self.membership.poll_outputs() {
            self.on_membership(output, context);
        }
        if let Some(reason) = refused {
            let refusal = Refusal::Invalid;
            return self.reply(door, Reply::Refused { refusal, reason: reason.to_owned() });
        }
        let body = Body::Operator { action: "recover".into() };
        let (_, writes) = self.chain.append(body, context.now.wall);
        self.persist(Batch::synced(writes), After::Done(door));
    }
}
