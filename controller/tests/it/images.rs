//! Images to a node's engine, through its tunnel and its proxy.

use api::fleet::NodeId;
use bytes::Bytes;
use futures_util::stream;
use stillmetal_controller::vault::{EnsureError, Ensured, ImageRecord, Vault};
use stillmetal_fakes::FakeImage;
use tempfile::TempDir;

use crate::rig::{Rig, soon};

const LAYER: usize = 400_000;

struct Lab {
    rig: Rig,
    vault: Vault,
    _dir: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            rig: Rig::new().await,
            vault: Vault::open(dir.path()).unwrap(),
            _dir: dir,
        }
    }

    async fn push(&self, image: &FakeImage) -> ImageRecord {
        let archive = stream::iter([Ok(Bytes::copy_from_slice(&image.tar))]);
        let pushed = self.vault.push_images(1 << 30, archive, "ada", 1).await;
        let record = pushed.unwrap().remove(0);
        assert_eq!(record.id, image.id);
        record
    }

    async fn ensure(&self, image: &ImageRecord) -> Result<Ensured, EnsureError> {
        let node = NodeId::try_from("n1".to_owned()).unwrap();
        let ensured = self.vault.ensure_image(&self.rig.relay, &node, image);
        soon("the image is there", ensured).await
    }

    fn loaded(&self) -> Vec<usize> {
        self.rig.engine.look(|state| state.archives_loaded.clone())
    }
}

fn base() -> FakeImage {
    FakeImage::layered(&["base"], &[&[1; LAYER], &[2; LAYER]])
}

#[tokio::test]
async fn an_image_is_sent_once() {
    let lab = Lab::new().await;
    let image = lab.push(&base()).await;
    let bytes = image.bytes;
    let first = lab.ensure(&image).await.unwrap();
    assert_eq!(first, Ensured::Loaded { bytes, spared: 0 });
    assert_eq!(lab.ensure(&image).await.unwrap(), Ensured::AlreadyThere);
    assert_eq!(lab.loaded().len(), 1);
}

#[tokio::test]
async fn layers_that_are_there_are_not_sent_again() {
    let lab = Lab::new().await;
    lab.ensure(&lab.push(&base()).await).await.unwrap();
    let other = FakeImage::layered(&["other"], &[&[1; LAYER], &[3; LAYER], b"small"]);
    let image = lab.push(&other).await;
    let ensured = lab.ensure(&image).await.unwrap();
    let Ensured::Loaded { bytes, spared: 1 } = ensured else {
        panic!("{ensured:?}");
    };
    assert!(bytes < image.bytes - LAYER as u64, "{bytes}");
    assert!(bytes > LAYER as u64, "{bytes}");
    assert_eq!(lab.loaded()[1] as u64, bytes);
    assert_eq!(lab.ensure(&image).await.unwrap(), Ensured::AlreadyThere);
}

#[tokio::test]
async fn a_file_that_a_missing_layer_needs_is_sent() {
    let lab = Lab::new().await;
    lab.ensure(&lab.push(&base()).await).await.unwrap();
    // on the same ground, with the base's first layer once more on top
    let layers: [&[u8]; 4] = [&[1; LAYER], &[2; LAYER], b"small", &[1; LAYER]];
    let image = lab.push(&FakeImage::layered(&["grown"], &layers)).await;
    let ensured = lab.ensure(&image).await.unwrap();
    let Ensured::Loaded { bytes, spared: 2 } = ensured else {
        panic!("{ensured:?}");
    };
    assert!(
        (LAYER as u64..2 * LAYER as u64).contains(&bytes),
        "{bytes}: one of two files"
    );
}

#[tokio::test]
async fn an_engine_that_wants_all_gets_all() {
    let lab = Lab::new().await;
    lab.ensure(&lab.push(&base()).await).await.unwrap();
    lab.rig.engine.change(|state| state.wants_all_layers = true);
    let other = FakeImage::layered(&["other"], &[&[1; LAYER], b"small"]);
    let image = lab.push(&other).await;
    let bytes = image.bytes;
    let ensured = lab.ensure(&image).await.unwrap();
    assert_eq!(ensured, Ensured::Loaded { bytes, spared: 0 });
    assert_eq!(lab.loaded().len(), 3, "without the layer, then with it");
}

#[tokio::test]
async fn an_engine_that_says_it_has_it_is_not_believed() {
    let lab = Lab::new().await;
    lab.rig.engine.change(|state| state.lose_images = true);
    let lost = lab.ensure(&lab.push(&base()).await).await;
    assert!(matches!(lost, Err(EnsureError::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn an_engine_that_does_not_tell_what_it_has_gets_all() {
    let lab = Lab::new().await;
    lab.ensure(&lab.push(&base()).await).await.unwrap();
    lab.rig.engine.change(|state| state.hide_images = true);
    let other = FakeImage::layered(&["other"], &[&[1; LAYER], b"small"]);
    let image = lab.push(&other).await;
    let bytes = image.bytes;
    let ensured = lab.ensure(&image).await.unwrap();
    assert_eq!(ensured, Ensured::Loaded { bytes, spared: 0 });
}
