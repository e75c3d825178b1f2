//! Containers that the agent itself makes, starts and takes away.

use std::collections::BTreeMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
};

use super::client::{EngineClient, engine, missing_or};
use crate::placement::containers::ContainersError;

impl EngineClient {
    /// The digest that an image's name stands for now.
    ///
    /// # Errors
    /// [`ContainersError`]; `NoSuch` is the image then.
    pub(crate) async fn image_digest(&self, name: &str) -> Result<String, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let found = docker.inspect_image(name).await;
        let found = found.map_err(|error| missing_or(name, "inspect an image", error))?;
        Ok(found.id.unwrap_or_default())
    }

    /// Makes a container of a body that policy has checked; returns its id.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub(crate) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        let made = docker.create_container(Some(options), body).await;
        Ok(made
            .map_err(|error| engine("create a container", error))?
            .id)
    }

    /// # Errors
    /// [`ContainersError`].
    pub(crate) async fn start(&self, id: &str) -> Result<(), ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let started = docker.start_container(id, None::<StartContainerOptions>);
        let started = started.await;
        started.map_err(|error| missing_or(id, "start a container", error))
    }

    /// Takes a container away with its anonymous volumes, running or not.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub(crate) async fn remove(&self, id: &str) -> Result<(), ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            ..Default::default()
        };
        let removed = docker.remove_container(id, Some(options)).await;
        removed.map_err(|error| missing_or(id, "remove a container", error))
    }

    /// The containers, running or not, that carry a label: their ids and all their labels.
    ///
    /// # Errors
    /// [`ContainersError`].
    pub(crate) async fn labelled(
        &self,
        label: &str,
    ) -> Result<Vec<(String, BTreeMap<String, String>)>, ContainersError> {
        let docker = self.connect().map_err(|error| engine("connect", error))?;
        let filters = [("label".to_owned(), vec![label.to_owned()])];
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters.into()),
            ..Default::default()
        };
        let found = docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| engine("list containers", error))?;
        let known = found.into_iter().filter_map(|one| {
            let labels = one.labels.unwrap_or_default().into_iter().collect();
            Some((one.id?, labels))
        });
        Ok(known.collect())
    }
}
