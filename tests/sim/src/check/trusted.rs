//! Whom an exchange of the fleet's authority shuts out.

use crate::world::World;
use cloud_core::store::AggregateId;
use shared::ids::NodeId;

/// What it means.
pub const DEFINITION: &str = "When the next authority takes the place of the present one, each gateway has a certificate \
    of it, but for those that whoever forced that was told of, and for those whose disk went back. Where the coordinator's \
    store went back, excepted are those that did not call since and that it does not know, or all that did not where \
    nothing told it so.";

/// The next authority took the place of the present one; these were named as left behind.
pub fn on_finish(world: &mut World, left: &[String]) {
    let present = world.cloud.authorities.present;
    let shut_out = |m: &usize| {
        let machine = &world.machines[*m];
        let life = world.lives.get(machine.life);
        let counts = machine.node.is_some()
            && !machine.destroyed
            && life.is_some_and(|life| !life.branched)
            && !world.is_declared_gone(*m)
            && !world.is_liar(*m)
            && is_known(world, *m);
        counts && machine.renewal.issuer != present && !left.contains(&machine.name)
    };
    let found = (0..world.machines.len()).find(shut_out);
    if let Some(m) = found {
        let issuer = world.machines[m].renewal.issuer;
        let text = format!("gw-{} is shut out with {issuer:?} by {present:?}", m + 1);
        world.fail("trusted", text);
    }
}

/// Whether the coordinator can know what the gateway carries.
fn is_known(world: &World, m: usize) -> bool {
    let (cloud, node) = (&world.cloud, world.machines[m].node);
    let is_known = |node: NodeId| {
        let versions = &cloud.truth.versions;
        let is_named = !cloud.put_back && versions.contains_key(&AggregateId::Node(node));
        !cloud.went_back || cloud.heard.contains(&node) || is_named
    };
    node.is_some_and(is_known)
}
