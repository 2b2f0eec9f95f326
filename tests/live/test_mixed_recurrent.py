"""Recurrent layers, and single rows of large matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import randes_cli
from randes_cli.errors import MismatchError
from tests.live.many import ASKED, options
from tests.live.test_mixed_layers import assert_module_answers, bank_of_states

pytestmark = pytest.mark.filterwarnings("ignore:.*are answered task by task")


class Recurrent(nn.Module):
    """Every kind of recurrent layer, each begun with the states of the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(24, 16, batch_first=True)
        self.rnn = nn.RNN(16, 8, batch_first=True)
        self.gru_cell, self.lstm_cell = nn.GRUCell(8, 16), nn.LSTMCell(16, 8)
        self.rnn_cell = nn.RNNCell(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen, (states, _) = self.lstm(x)
        seen, last = self.gru(seen)
        seen, _ = self.rnn(seen)
        short, long = self.lstm_cell(self.gru_cell(seen[:, -1], last[0]))
        return torch.cat([seen[:, 0], self.rnn_cell(short, long), states[-1]], 1)


def test_recurrent_layers_answer_each_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Recurrent()
    bank = bank_of_states(model, tmp_path, options(groups=2))
    assert_module_answers(model, bank, torch.randn(5, 7, 8))
    mixed = randes_cli.attach(model, bank)
    assert {"lstm.weight_hh_l0", "gru_cell.weight_hh"} <= set(mixed.by_task)


def test_lengths_and_time_first_are_refused(tmp_path: Path) -> None:
    bank = bank_of_states(nn.LSTM(8, 8), tmp_path, options())
    with pytest.raises(MismatchError, match="the model: puts time before the batch"):
        randes_cli.attach(nn.LSTM(8, 8), bank)
    mixed = randes_cli.attach(nn.LSTM(8, 8, batch_first=True), bank)
    lengths = pack_padded_sequence(torch.randn(5, 4, 8), torch.tensor([4, 3, 3, 2, 1]), True)
    with pytest.raises(MismatchError, match="a packed sequence"):
        mixed(lengths, adapter_names=ASKED)


class Filled(nn.Module):
    """As in Gemma 4: places of pictures get the embedding of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(96, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.where(ids[..., None] == 3, self.words.weight[0, :], self.words(ids))


def test_one_row_of_a_large_matrix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bank = bank_of_states(Filled(), tmp_path, options(groups=2))
    assert_module_answers(Filled(), bank, torch.randint(0, 6, (5, 12)))
