//! What people do: they make tasks, stop them and try them again. They come to the database without a session.

use chrono::TimeDelta;
use sculpt_core::{
    review::Review,
    task::{Event, Intent, OnLost, Policy},
};
use sculpt_proto::id::TaskId;

use super::{
    Archive,
    rows::{Next, TaskRow},
};
use crate::world::World;

impl Archive {
    /// Makes a task.
    pub fn create(&self, world: &World, on_lost: OnLost, lost_after: TimeDelta) -> TaskId {
        let id = TaskId(world.dice.uuid());
        let mut rows = self.rows();
        let number = rows.tasks.len() as u64 + 1;
        let row = TaskRow {
            number,
            intent: Intent::Run,
            review: Review::None,
            policy: Policy { on_lost, lost_after },
            run: Next::Queued(1),
            published: None,
        };
        rows.tasks.insert(id, row);
        world.tell(format_args!("people: task {number} is {id}, {on_lost:?} after {lost_after}"));
        id
    }

    /// Stops a task or tries it again, if that is possible now. Nobody is told: the next poll finds it.
    pub fn wish(&self, world: &World, task: TaskId, event: &Event) {
        let moved = self.rows().apply(task, event, world.wall());
        if moved.is_ok() {
            world.tell(format_args!("people: {task}: {}", event.kind()));
        }
    }
}
