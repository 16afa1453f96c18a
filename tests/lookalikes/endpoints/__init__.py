"""The parts of the look-alike of the Inference Endpoints API: see `lookalikes.deployments`."""
