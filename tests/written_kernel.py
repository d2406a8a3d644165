"""The kernel that `tree_attention` calls, written out."""

from itertools import pairwise

import torch


class Written:
    """Piece by piece; what lies outside of a call's bounds is left to be anything, as a real kernel leaves it."""

    def scores(self, query_MHD, key_SKD, call, scale):
        for (start, end), (first, last) in zip(
            pairwise(call.query_bounds.tolist()), pairwise(call.key_bounds.tolist()), strict=True
        ):
            key_SHD = key_SKD[first:last].repeat_interleave(query_MHD.shape[1] // key_SKD.shape[1], dim=1)
            scores_HMS = torch.einsum("mhd,shd->hms", query_MHD[start:end], key_SHD) * scale
            if call.causal:
                ahead = torch.ones(end - start, last - first, dtype=torch.bool).triu(1)
                scores_HMS = scores_HMS.masked_fill(ahead, -torch.inf)
            yield slice(start, end), slice(first, last), key_SHD, scores_HMS

    def forward(self, query_MHD, key_SKD, value_SKD, call, scale):
        groups = query_MHD.shape[1] // key_SKD.shape[1]
        out = torch.full_like(query_MHD, torch.nan)
        lse = query_MHD.new_full((query_MHD.shape[1], len(query_MHD)), torch.nan)
        for asks, looks, _, scores_HMS in self.scores(query_MHD, key_SKD, call, scale):
            value_SHD = value_SKD[looks].repeat_interleave(groups, dim=1)
            out[asks] = torch.einsum("hms,shd->mhd", scores_HMS.softmax(-1), value_SHD)
            lse[:, asks] = scores_HMS.logsumexp(-1)
        assert call.most_queries >= call.query_bounds.diff().max()
        assert call.most_keys >= call.key_bounds.diff().max()
        return out, lse

    def backward(self, dout, query, key, value, out, lse, call, scale):
        groups = query.shape[1] // key.shape[1]
        dquery, dkey, dvalue = (torch.full_like(x, torch.nan) for x in (query, key, value))
        for asks, looks, key_SHD, scores_HMS in self.scores(query, key, call, scale):
            weights = (scores_HMS - lse[:, asks, None]).exp()
            value_SHD = value[looks].repeat_interleave(groups, dim=1)
            along = (dout[asks] * out[asks]).sum(-1).T[..., None]
            dscores = weights * (torch.einsum("mhd,shd->hms", dout[asks], value_SHD) - along) * scale
            dquery[asks] = torch.einsum("hms,shd->mhd", dscores, key_SHD)
            dkey[looks] = torch.einsum("hms,mhd->shd", dscores, query[asks]).unflatten(1, (-1, groups)).sum(2)
            dvalue[looks] = (
                torch.einsum("hms,mhd->shd", weights, dout[asks]).unflatten(1, (-1, groups)).sum(2)
            )
        return dquery, dkey, dvalue
