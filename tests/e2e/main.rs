//! End to end, as a black box: the real API server under the narrow logins that people and parts have.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "this is test code: what cannot go on must stop"
)]

mod admit_examples;
mod admit_input;
mod admit_lines;
mod admit_platform;
mod api_window;
mod install_chart;
mod install_guide;
mod matrix;
mod reconcile_after;
mod reconcile_beside;
mod reconcile_credentials;
mod reconcile_deletion;
mod reconcile_door;
mod reconcile_drift;
mod reconcile_edits;
mod reconcile_egress;
mod reconcile_ends;
mod reconcile_machine;
mod reconcile_mount;
mod reconcile_network;
mod reconcile_receipt;
mod reconcile_refusals;
mod reconcile_seal;
mod reconcile_serve;
mod reconcile_shared;
mod reconcile_story;
mod reconcile_volumes;
mod recover_admission;
mod recover_edits;
mod recover_ends;
mod recover_faults;
mod recover_hands;
mod recover_keys;
mod recover_names;
mod recover_order;
mod recover_real;
mod recover_server;
mod running;
mod up_asks;
mod up_down;
