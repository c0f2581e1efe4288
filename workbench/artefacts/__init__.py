"""Artefacts published by other people: parsed safely, validated, and stored as safetensors with their origin."""

from workbench.artefacts.austeer import AuSteerScores, read_austeer
from workbench.artefacts.caa import CaaVectors, read_caa
from workbench.artefacts.concepts import CONCEPTS, Concept
from workbench.artefacts.lora import ConceptSlider, read_lora
from workbench.artefacts.sae_folder import PublishedSAE, read_sae
from workbench.artefacts.scores import ScoreTables, read_scores
from workbench.artefacts.token_embedding import TokenDirection, read_token_embedding
from workbench.artefacts.written import Imported, list_imported, open_imported, write_artefact

__all__ = [
    "CONCEPTS",
    "AuSteerScores",
    "CaaVectors",
    "Concept",
    "ConceptSlider",
    "Imported",
    "PublishedSAE",
    "ScoreTables",
    "TokenDirection",
    "list_imported",
    "open_imported",
    "read_austeer",
    "read_caa",
    "read_lora",
    "read_sae",
    "read_scores",
    "read_token_embedding",
    "write_artefact",
]
