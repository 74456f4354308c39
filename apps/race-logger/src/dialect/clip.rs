//! Clips that come inside a report (CT-18): taken out before the record's size is judged, kept beside the database
//! under their SHA-256, and given back.

use super::{
    door::{Asker, Refused},
    fingerprint::sha256,
    shapes,
};
use axum::{
    Extension,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use ropeway_core::{
    doc::Fields,
    id::{Collection, Key, RecordId},
};
use ropeway_server::Host;
use serde_json::Value;
use std::{io, path::PathBuf, sync::Arc};
use tokio::{fs, io::AsyncWriteExt, sync::Mutex};

/// The field that holds what is known of a clip.
const CLIP: &str = "video_clip";

/// The bytes of a clip, under their name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clip {
    sha256: String,
    bytes: Vec<u8>,
}

/// Takes the bytes out of a report. What is no base64 is no clip: the report stands, and its clip is still to
/// come (ISMF-159).
pub(crate) fn take_out(fields: &mut Fields) -> Option<Clip> {
    let Some(Value::Object(clip)) = fields.get_mut(CLIP) else { return None };
    let sent = clip.remove("file_data")?;
    let bytes = sent.as_str().and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
        clip.insert("status".into(), "pending".into());
        return None;
    };
    let name = sha256(&bytes);
    clip.insert("status".into(), "uploaded".into());
    clip.insert("sha256".into(), name.as_str().into());
    clip.insert("size".into(), bytes.len().into());
    Some(Clip { sha256: name, bytes })
}

/// Where clips are kept.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: Arc<PathBuf>,
    /// Bytes on it; `None` until somebody has looked, and after a write that did not come to its end.
    taken: Arc<Mutex<Option<u64>>>,
}

impl Shelf {
    /// A shelf in a directory, which is made with the first clip.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir), taken: Arc::default() }
    }

    /// Keeps a clip: on disk before its report is decided. `part` names what is being written: two may bring
    /// the same clip at once, and either may be cut. False, and nothing is written, where there would be more than
    /// `most` bytes.
    pub(crate) async fn put(&self, clip: Clip, part: &str, most: u64) -> Result<bool, Refused> {
        self.keep(clip, part, most).await.map_err(|error| {
            tracing::error!(%error, dir = %self.dir.display(), "a clip cannot be kept");
            Refused::new(
                503,
                "unavailable",
                "a clip cannot be kept now; nothing was taken in: send the same again",
            )
        })
    }

    async fn keep(&self, Clip { sha256, bytes }: Clip, part: &str, most: u64) -> io::Result<bool> {
        let path = self.dir.join(&sha256);
        // One at a time: so that what is taken is known, and nobody's part is swept away.
        let mut taken = self.taken.lock().await;
        if fs::try_exists(&path).await? {
            return Ok(true);
        }
        fs::create_dir_all(&*self.dir).await?;
        // Known again once the clip is kept: where it is cut or fails, the next one looks anew.
        let before = match taken.take() {
            Some(before) => before,
            None => self.swept().await?,
        };
        let after = before.saturating_add(bytes.len() as u64);
        if after > most {
            *taken = Some(before);
            return Ok(false);
        }
        let part = self.dir.join(format!("{part}.part"));
        let mut file = fs::File::create(&part).await?;
        file.write_all(&bytes).await?;
        file.sync_all().await?;
        fs::rename(&part, &path).await?;
        fs::File::open(&*self.dir).await?.sync_all().await?;
        *taken = Some(after);
        Ok(true)
    }

    /// Bytes of all clips on it, after what was never finished is gone.
    async fn swept(&self) -> io::Result<u64> {
        let (mut files, mut bytes) = (fs::read_dir(&*self.dir).await?, 0);
        while let Some(file) = files.next_entry().await? {
            match file.path().extension() {
                Some(end) if end == "part" => fs::remove_file(file.path()).await?,
                _ => bytes += file.metadata().await?.len(),
            }
        }
        Ok(bytes)
    }
}

/// `GET /reports/{client_uuid}/video`: the bytes of a report's clip.
#[utoipa::path(get, path = "/reports/{client_uuid}/video", operation_id = "show_clip",
    tag = "race logger", security(("token" = [])),
    params(("client_uuid" = String, Path, description = "The id of a record")),
    responses(shapes::Door, (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        shapes::Absent))]
pub(crate) async fn show(
    State(host): State<Host>,
    asker: Asker,
    Extension(shelf): Extension<Shelf>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let missing = || Refused::not_found(&format!("a clip of the report `{id}`"));
    let id = RecordId::parse(&id).map_err(|_| missing())?;
    let key = Key { collection: Collection::trusted("report"), id };
    if !host.node().sees(&asker.caller.device, &key).await? {
        return Err(missing());
    }
    let (_, report) = host.node().resolve_record(asker.caller.space(), &key).await?.ok_or_else(missing)?;
    let name = report.data.get(CLIP).and_then(|clip| clip["sha256"].as_str()).ok_or_else(missing)?;
    // A client wrote this name too: nothing but a digest is looked for.
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let bytes = fs::read(shelf.dir.join(name)).await.map_err(|_| missing())?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_taken_out_and_what_is_none_stays_to_come() {
        let taken = |file_data: Value| {
            let report = json!({ "video_clip": { "start_time": "00:15:32", "file_data": file_data } });
            let mut fields: Fields = serde_json::from_value(report).unwrap_or_default();
            let clip = take_out(&mut fields);
            (clip.map(|clip| clip.bytes), fields["video_clip"].clone())
        };
        let (bytes, left) = taken(json!("aGVsbG8="));
        assert_eq!(bytes.as_deref(), Some(&b"hello"[..]));
        let name = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(
            left,
            json!({ "start_time": "00:15:32", "status": "uploaded", "sha256": name, "size": 5 })
        );
        for none in [json!("<base64_encoded_video>"), json!(""), json!(7), Value::Null] {
            assert_eq!(taken(none), (None, json!({ "start_time": "00:15:32", "status": "pending" })));
        }
        assert_eq!(take_out(&mut Fields::new()), None);
    }

    fn clip(letter: u8) -> Clip {
        let bytes = vec![letter; 10];
        Clip { sha256: sha256(&bytes), bytes }
    }

    #[tokio::test]
    async fn what_was_never_finished_takes_no_room() {
        let dir = tempfile::tempdir().unwrap_or_else(|why| panic!("{why}"));
        let path = dir.path().join("clips");
        let shelf = Shelf::new(path.clone());
        let put = async |shelf: &Shelf, letter: u8, part: &str| {
            shelf.keep(clip(letter), part, 20).await.map_err(|error| error.kind())
        };
        assert_eq!(put(&shelf, b'a', "1").await, Ok(true));
        // Killed over a part, and one that fails: a directory stands where it would be named.
        assert_eq!(fs::write(path.join("2.part"), [0; 19]).await.map_err(|e| e.kind()), Ok(()));
        let shelf = Shelf::new(path.clone());
        let blocked = path.join("no-directory").join("3");
        assert_eq!(put(&shelf, b'b', &blocked.to_string_lossy()).await, Err(io::ErrorKind::NotFound));
        assert!(!path.join("2.part").exists(), "swept away when the shelf was measured");
        assert_eq!(put(&shelf, b'b', "4").await, Ok(true), "there is room for two");
        assert_eq!(put(&shelf, b'c', "5").await, Ok(false), "and for no third");
        assert_eq!(put(&shelf, b'a', "6").await, Ok(true), "what is there needs no room");
    }

    #[tokio::test]
    async fn one_clip_that_comes_twice_at_once_is_counted_once() {
        let dir = tempfile::tempdir().unwrap_or_else(|why| panic!("{why}"));
        let shelf = Shelf::new(dir.path().join("clips"));
        let put = async |letter: u8, part: &str| {
            shelf.keep(clip(letter), part, 20).await.map_err(|error| error.kind())
        };
        let both = tokio::join!(put(b'a', "1"), put(b'a', "2"));
        assert_eq!(both, (Ok(true), Ok(true)));
        assert_eq!(put(b'b', "3").await, Ok(true), "the second copy took nothing");
    }
}
