//! The conditions of a dataset.

use dejima_policy::facts;
use dejima_policy::standing;

use crate::world::{Story, tokyo};

#[test]
fn the_conditions_of_a_dataset_follow_its_approvals_in_order() {
    let story = Story::good();
    let said = |story: &Story| {
        let dataset = facts::dataset(&story.dataset, &story.of_dataset);
        let all = standing(&dataset, story.at, &tokyo());
        let last = all.last().unwrap();
        (format!("{:?}", last.status), last.reason, last.message.clone())
    };
    assert_eq!(said(&story).1, "Mountable");
    let mut late = story.clone();
    late.dataset.spec.approvals[0].approved_on = "2025-03".into();
    let (status, reason, message) = said(&late);
    assert_eq!((status.as_str(), reason), ("False", "OutOfOrder"), "{message}");
    let mut unsigned = story;
    unsigned.of_dataset.truncate(1);
    assert_eq!(said(&unsigned).1, "Unattested");
}
