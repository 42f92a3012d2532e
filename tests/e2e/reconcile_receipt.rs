//! Proof of destruction: the receipt of a project that was deleted, checked with the public key and nothing else.

use std::path::PathBuf;
use std::process::Output;

use dejima_tests::parts::Platform;
use dejima_tests::{ADMIN, LEAD, without_data};
use serde_json::{Value, json};

const HOST: &str = "host-r";

/// The receipts in a namespace, as ConfigMaps.
fn receipts(platform: &Platform, tenant: &str) -> Vec<Value> {
    let answer = platform
        .world
        .run(LEAD, &["get", "configmaps", "-n", tenant, "-l", "dejima.dev/receipt", "-o", "json"])
        .accepted();
    serde_json::from_str::<Value>(&answer).unwrap()["items"].as_array().unwrap().clone()
}

/// The document of the only receipt that a project has, if it is in this state.
fn document(platform: &Platform, tenant: &str, uid: &str, state: &str) -> Option<String> {
    let all = receipts(platform, tenant);
    let of: Vec<&Value> = all
        .iter()
        .filter(|object| object["metadata"]["labels"]["dejima.dev/project"] == uid)
        .collect();
    assert!(of.len() <= 1, "{of:?}");
    let found = of
        .first()
        .filter(|object| object["metadata"]["labels"]["dejima.dev/receipt"] == state)?;
    assert_eq!(found["metadata"]["name"], format!("receipt-liver-ct-{}", &uid[..8]));
    Some(found["data"]["receipt.json"].as_str().unwrap().to_owned())
}

fn file(platform: &Platform, name: &str, text: &str) -> PathBuf {
    let path = platform.dir().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Checks a document with a key, as anybody can: no cluster is asked.
fn verify(platform: &Platform, lang: &str, document: &str, key: &str) -> Output {
    let (document, key) = (file(platform, "document", document), file(platform, "public-key", key));
    let mut command = std::process::Command::new(dejima_tests::parts::program());
    command
        .env_remove("KUBECONFIG")
        .args([
            "--lang",
            lang,
            "receipt",
            "verify",
            document.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ])
        .output()
        .unwrap()
}

fn holds(platform: &Platform, document: &str, key: &str) -> bool {
    verify(platform, "en", document, key).status.success()
}

/// The public part of a key at the key server.
fn public_key(platform: &Platform, name: &str) -> String {
    let path = format!("transit/keys/{name}");
    platform.keys.run(&["read", "-format=json", &path], None).unwrap()
}

#[test]
fn a_deleted_project_leaves_a_receipt_that_anybody_can_check() {
    let mut platform = Platform::new("receipt", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    let begun = std::time::Instant::now();
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");
    let object = platform.world.get(&tenant, "isolatedproject", "liver-ct");
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    let plan = platform
        .world
        .get(&format!("dejima-host-{HOST}"), "hostplan", &format!("project-{uid}"));
    let items = plan["status"]["items"].as_array().unwrap();
    let wrapped = items.iter().find(|item| item["item"] == "volume/work").unwrap()["wrappedKey"]
        .as_str()
        .unwrap()
        .to_owned();
    let open = |platform: &Platform| {
        let (key, text) = (format!("transit/decrypt/project-{uid}"), format!("ciphertext={wrapped}"));
        platform.keys.run(&["write", "-field=plaintext", &key, &text], None)
    };
    assert!(
        open(&platform).is_ok(),
        "the control: while the project is there its data key can be unwrapped"
    );
    assert!(receipts(&platform, &tenant).is_empty());

    // The host is silent: the key is gone all the same, and the receipt says who has not confirmed.
    platform.stop(HOST);
    let deleted = std::time::Instant::now();
    platform
        .world
        .run(LEAD, &["delete", "isolatedproject", "liver-ct", "-n", &tenant, "--wait=false"])
        .accepted();
    platform.eventually("a partial receipt", || document(&platform, &tenant, &uid, "partial").is_some());
    let until_partial = deleted.elapsed();
    let partial = document(&platform, &tenant, &uid, "partial").unwrap();
    let said: Value = serde_json::from_str(&partial).unwrap();
    assert_eq!(said["receipt"]["hosts"][0]["host"], HOST);
    assert!(said["receipt"]["hosts"][0]["unconfirmedSince"].is_string() && said["receipt"]["hosts"][0]["closedAt"].is_null());
    assert!(open(&platform).is_err(), "the data key can still be unwrapped");
    platform.eventually("status says so", || {
        let status = platform.world.get(&tenant, "isolatedproject", "liver-ct")["status"].clone();
        status["receipt"] == said["receipt"]["id"]
            && platform.condition(&tenant, "isolatedproject", "liver-ct", "Terminating").2
                == format!("waiting for {HOST}; the receipt is partial")
    });
    assert_eq!(platform.world.get("", "host", HOST)["status"]["heldBy"]["uid"], uid.as_str());

    // Two lives of the operator issue the same receipt.
    platform.start_operator(None);
    platform.eventually("the operator is back", || {
        let text = std::fs::read_to_string(platform.dir().join("operator.log")).unwrap_or_default();
        text.contains("the operator is at work")
    });
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(document(&platform, &tenant, &uid, "partial").unwrap(), partial);

    // The host is back.
    let back = std::time::Instant::now();
    platform.start_host(HOST, None);
    platform.eventually("a final receipt", || document(&platform, &tenant, &uid, "final").is_some());
    let until_final = back.elapsed();
    let last = document(&platform, &tenant, &uid, "final").unwrap();
    let said: Value = serde_json::from_str(&last).unwrap();
    let receipt = &said["receipt"];
    assert!(
        receipt["hosts"][0]["closedAt"].is_string() && receipt["sweptAt"].is_string(),
        "{said}"
    );
    assert_eq!(receipt["project"], json!({"namespace": tenant, "name": "liver-ct", "uid": uid}));
    assert_eq!(
        (&receipt["volumes"], &receipt["keyServerBackupHorizon"]),
        (&json!(["work"]), &json!("P0D"))
    );
    platform.eventually("the project gone", || {
        !platform
            .world
            .run(ADMIN, &["get", "isolatedproject", "liver-ct", "-n", &tenant])
            .accepted
    });

    // It holds under the platform's key, in every form in which people have that; under no other, and with no byte changed.
    let ours = public_key(&platform, "dejima-receipts");
    platform
        .keys
        .run(&["write", "transit/keys/another", "type=ed25519"], None)
        .expect("a fresh key");
    let fresh = public_key(&platform, "another");
    let published = platform.world.get("dejima-system", "configmap", "dejima-receipts")["data"]["1.pem"].clone();
    let words = platform.keys.run(&["read", "transit/keys/dejima-receipts"], None).unwrap();
    for key in [ours.as_str(), published.as_str().unwrap(), &words] {
        assert!(holds(&platform, &last, key), "{key}");
        assert!(holds(&platform, &partial, key), "{key}");
    }
    let object = receipts(&platform, &tenant).first().unwrap().to_string();
    assert!(holds(&platform, &object, &ours), "as the ConfigMap bears it");
    assert!(!holds(&platform, &last, &fresh), "under another key");
    let changed = last.replace("\"state\":\"final\"", "\"state\":\"partial\"");
    assert!(changed != last && !holds(&platform, &changed, &ours), "with its state changed");
    for at in (0..last.len()).step_by(last.len() / 40) {
        let mut bytes = last.clone().into_bytes();
        bytes[at] ^= 1;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!holds(&platform, &text, &ours), "with byte {at} changed");
    }
    // The key does not leave the key server, not even for its root; one that may, does.
    let export = |key: &str| platform.keys.run(&["read", &format!("transit/export/signing-key/{key}")], None);
    let made = platform
        .keys
        .run(&["write", "transit/keys/may-leave", "type=ed25519", "exportable=true"], None);
    assert!(made.is_ok() && export("may-leave").is_ok(), "the control");
    let refused = export("dejima-receipts").unwrap_err().to_string();
    assert!(refused.contains("not exportable"), "{refused}");
    // Signed with a fresh key, the same words do not hold; under the fresh key they do.
    let bytes = serde_json::to_string(receipt).unwrap();
    let input = format!("input={}", base64(&platform, &bytes));
    let signature = platform
        .keys
        .run(&["write", "-field=signature", "transit/sign/another", &input], None)
        .unwrap();
    let forged = json!({"receipt": receipt, "signature": signature.trim().rsplit(':').next()}).to_string();
    assert!(!holds(&platform, &forged, &ours), "signed with a fresh key");
    assert!(holds(&platform, &forged, &fresh), "the control");
    let answer = |lang: &str, text: &str| {
        let output = verify(&platform, lang, text, &ours);
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    assert!(
        answer("en", &last).contains("is final") && answer("ja", &last).contains("確定"),
        "{}",
        answer("en", &last)
    );
    assert!(answer("en", &partial).contains("is partial") && answer("en", &changed).contains("does not hold"));

    // The ledger has both, by the operator, and the end of the project names its receipt.
    let records = platform.records();
    let of = |phase: &str| {
        let found = records
            .iter()
            .find(|record| record["act"]["kind"] == "receipt" && record["act"]["phase"] == phase);
        let found = found.unwrap_or_else(|| panic!("no {phase} receipt in {records:?}"));
        assert_eq!(found["writer"], "system:serviceaccount:dejima-system:operator");
        found["act"]["facts"]["receipt.json"].clone()
    };
    assert_eq!((of("begun"), of("ended")), (json!(partial), json!(last)));
    let end = records
        .iter()
        .find(|record| record["act"]["kind"] == "delete" && record["act"]["phase"] == "ended")
        .unwrap();
    assert_eq!(
        end["act"]["generated"],
        json!([format!("receipt/{}", receipt["id"].as_str().unwrap())])
    );
    // Nobody else issues one; and the same again, another one, or a partial one that comes late, is the one that stands.
    let operator = "system:serviceaccount:dejima-system:operator";
    assert_eq!(platform.ask(LEAD, "POST", "/api/v1/receipts", Some(&said)).0, 403);
    let mut other = said.clone();
    other["receipt"]["issuedAt"] = json!("2030-01-01T00:00:00Z");
    let late: Value = serde_json::from_str(&partial).unwrap();
    for again in [&said, &other, &late] {
        assert_eq!(platform.ask(operator, "POST", "/api/v1/receipts", Some(again)), (200, said.clone()));
    }
    assert_eq!(platform.records().len(), records.len());

    // Of a tenant's ConfigMaps the operator writes receipts, which it did, and no other; it reads none.
    let other = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {tenant}}}\n");
    platform
        .world
        .create(operator, &other)
        .refused("of a tenant's ConfigMaps the operator writes receipts alone");
    platform
        .world
        .run(operator, &["get", "configmaps", "-n", &tenant])
        .refused("cannot list resource");

    std::fs::write(
        platform.dir().join("receipt.txt"),
        format!(
            "whole {:?}, partial after {until_partial:?}, final {until_final:?} after the host came back\n",
            begun.elapsed()
        ),
    )
    .unwrap();
}

/// Base64, by the key server's host: no crate for one line of a test.
fn base64(platform: &Platform, text: &str) -> String {
    let path = file(platform, "to-be-signed", text);
    let output = std::process::Command::new("base64").arg("-w0").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_namespace_that_goes_away_keeps_no_receipt_and_does_not_keep_the_project() {
    let mut platform = Platform::new("receipt-gone", &[HOST]);
    platform.start_operator(None);
    platform.start_host(HOST, None);
    let tenant = platform.world.namespace("osaka", &[("dejima-tenant", "dejima.dev/tenant-osaka")]);
    platform.world.create(LEAD, &without_data(&tenant)).accepted();
    platform.ready(&tenant, "liver-ct");
    platform
        .world
        .run(ADMIN, &["delete", "namespace", &tenant, "--wait=false"])
        .accepted();
    platform.eventually("the namespace gone", || {
        !platform.world.run(ADMIN, &["get", "namespace", &tenant]).accepted
    });
    let ended = |record: &Value| record["act"]["kind"] == "receipt" && record["act"]["phase"] == "ended";
    assert!(platform.records().iter().any(ended), "the ledger has it");
}
