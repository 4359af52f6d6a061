//! Decide, commit, act: feeds events to the core, makes its records durable in one commit, and only then hands
//! out the actions. The same loop runs in the agent and in the simulator.
