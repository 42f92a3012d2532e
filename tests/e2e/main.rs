//! End to end, as a black box: the real API server under the narrow logins that people and parts have.

mod admit_examples;
mod admit_lines;
mod admit_platform;
