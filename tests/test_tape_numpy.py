"""NumPy's public functions on traced arrays: each has a derivative, or derivative zero, or is refused by name.

The tables are lists of expressions. Their one-letter names are arrays, listed in `arrays`, and an expression is
differentiated with respect to all of them at once: the value against NumPy's, the tangent against differences of
order 8, both modes against each other, the second derivative against differences of the gradient. A function of
NumPy that is in no table fails `test_every_function_of_numpy_is_in_a_table`.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import nestfold as nf
from nestfold.backends import NoDerivativeError, get_backend

backend: Any = get_backend("numpy")


def arrays():
    """The pool, by name: real and complex."""
    rng = np.random.default_rng(1)
    shapes = {
        "a": (3, 4), "b": (3, 4), "c": (4,), "d": (3,), "e": (4,), "f": (), "g": (3, 1), "h": (2, 3, 4),
        "k": (2, 3, 3), "m": (4, 4), "n": (4, 4), "o": (3, 5, 2, 3), "p": (3, 4), "q": (4,), "r": (5,), "t": (3, 3),
        "w": (5, 3), "y": (2, 3, 6),
    }  # fmt: skip
    pool = {}
    for name, shape in shapes.items():
        x, y = rng.standard_normal(shape), rng.standard_normal(shape)
        if name in "pq":  # positive, above 1
            x, y = 1.2 + np.abs(x), 0.3 * y
        elif name in "kmt":  # regular
            x = x + 3 * np.eye(shape[-1])
        elif name == "r":  # increasing
            x = np.cumsum(0.3 + np.abs(x))
        pool[name] = (x, x + 1j * y)
    return pool


POOL = arrays()
#: functions with a derivative, of real and of complex arrays
BOTH = """
np.abs(a)  np.absolute(a)  np.acos(0.3*np.sin(a))  np.acosh(p)  np.arccos(0.3*np.sin(a))  np.arccosh(p)
np.arcsin(0.3*np.sin(a))  np.arcsinh(a)  np.arctan(0.3*a)  np.arctanh(0.2*np.cos(a))  np.asin(0.3*np.sin(a))
np.asinh(a)  np.atan(0.3*a)  np.atanh(0.2*np.cos(a))  np.conj(a)  np.conjugate(a)  np.cos(a)  np.cosh(a)  np.exp(a)
np.exp2(f)  np.expm1(a)  np.log(p)  np.log10(p)  np.log1p(p)  np.log2(p)  np.negative(a)  np.positive(a)
np.reciprocal(p)  np.sign(a)*p  np.sin(a)  np.sinh(a)  np.sqrt(p)  np.square(a)  np.tan(0.3*a)  np.tanh(0.3*a)
np.add(a,b)  np.subtract(a,b)  np.multiply(a,b)  np.divide(a,p)  np.true_divide(a,p)  np.power(p,3)  np.pow(p,b)
np.float_power(p,2)  np.matmul(a,m)  np.vecdot(a,b)  np.vecdot(a,b,axis=0)  np.matvec(a,c)  np.vecmat(d,a)
np.add(a,b,dtype=a.dtype,casting="unsafe")  np.multiply(a,b,where=True)

np.add.outer(c,d)  np.multiply.outer(a,d)  np.subtract.outer(2.0,a)  np.add.reduce(a)  np.add.reduce(a,axis=(0,1))
np.add.reduce(a,axis=None,keepdims=True,initial=2.0)  np.add.reduce(a,where=POS)  np.multiply.reduce(a,axis=1)
np.subtract.reduce(a,axis=1)  np.divide.reduce(p,axis=0,keepdims=True)  np.add.accumulate(a,axis=1)
np.multiply.accumulate(c)  np.subtract.accumulate(a)  np.add.reduceat(r,[0,3,1,2])
np.multiply.reduceat(a,[0,2],axis=1)

np.sum(a)  np.sum(a,axis=1,keepdims=True)  np.sum(a,where=POS)  np.sum(a,0,initial=1.5)  np.sum(a,dtype=complex)
np.prod(a,where=POS)  np.prod(a,1,initial=2.0,keepdims=True)  np.mean(a,1)
np.mean(a,axis=0,where=POS,keepdims=True)  np.mean(a,where=POS)  np.var(a,0,ddof=1)  np.var(a,where=POS)
np.var(a,axis=1,where=POS,keepdims=True)  np.var(a,axis=0,mean=np.mean(a,axis=0,keepdims=True))
np.std(a,1,correction=1)  np.std(a,where=POS)  np.cumsum(a)  np.cumsum(a,1,dtype=complex)  np.cumprod(c)
np.cumulative_sum(a,axis=0,include_initial=True)  np.cumulative_prod(c)  np.average(a)  np.average(a,0,d)
np.average(a,axis=(0,1),weights=np.abs(b))  np.average(h,axis=(2,0),weights=W42)  np.average(a,1,p,returned=True)[1]
np.average(a,returned=True)[0]  np.cov(a)  np.cov(a,b,rowvar=False)  np.cov(c)  np.cov(a,ddof=0)
np.cov(c,e,bias=True)  np.cov(a,fweights=IDX4,aweights=W4)  np.corrcoef(a)  np.corrcoef(a,b,rowvar=False)
np.nansum(np.where(POS,a,np.nan),axis=0)  np.nanprod(np.where(POS,a,np.nan))  np.nancumsum(np.where(POS,a,np.nan),0)
np.nanmean(np.where(POS,a,np.nan),axis=1,keepdims=True)  np.nanvar(np.where(POS,a,np.nan),ddof=1)
np.nanstd(np.where(POS,a,np.nan))  np.nancumprod(np.where(POS,a,np.nan))  np.trapezoid(a,axis=0)
np.trapezoid(c,r[:4])  np.trapezoid(a,dx=0.3)

np.reshape(a,(2,6))  np.reshape(a,(2,6),order="F")  np.reshape(a.T,-1,order="A")  np.ravel(a,"F")  np.ravel(a)
np.transpose(h)  np.transpose(h,axes=(1,2,0))  np.permute_dims(h,(1,0,2))  np.matrix_transpose(h)
np.swapaxes(h,0,-1)  np.moveaxis(h,0,2)  np.rollaxis(h,2)  np.rollaxis(h,0,3)  np.squeeze(g)
np.expand_dims(a,(0,2))  np.atleast_1d(f)  np.atleast_2d(c)  np.atleast_3d(a)  np.broadcast_to(c,(3,4))
np.broadcast_to(f,3)  np.broadcast_arrays(c,g)[1]*a  np.flip(a,0)  np.flipud(a)  np.fliplr(a)  np.rot90(a)
np.rot90(h,2,(1,2))  np.roll(a,1)  np.roll(a,(1,2),(0,1))  np.copy(a)  np.astype(a,complex)  np.concatenate([a,b])
np.concat((a,g),axis=1)  np.concatenate((a,c),axis=None)  np.concatenate([POLY,c])  np.stack((c,e),1)
np.hstack([c,d])  np.hstack([a,b])  np.vstack([c,a])  np.dstack([a,b])  np.dstack([c,e])  np.column_stack([d,a])
np.block([[a,g],[c,f]])  np.block([c,2.0])  np.block(a)  np.append(a,c)  np.append(a,b,axis=1)  np.append(c,3.0)
np.insert(c,2,f)  np.insert(a,[0,2],c,axis=0)  np.insert(a,1,d,axis=1)  np.insert(POLYC,1,f)
np.delete(a,[0,2],axis=1)  np.delete(c,1)  np.resize(a,(2,9))  np.tile(a,(2,1,3))  np.repeat(a,2)
np.repeat(a,[1,0,2],axis=0)  np.split(a,2,axis=1)[1]  np.array_split(a,3,axis=1)[0]  np.hsplit(a,2)[0]
np.vsplit(a,3)[2]  np.dsplit(h,[1,3])[1]  np.unstack(a,axis=1)[2]  np.meshgrid(c,d)[0]*np.meshgrid(c,d)[1]
np.meshgrid(c,d,indexing="ij",sparse=True)[1]  np.meshgrid(c,[1.0,2.0],f)[0]  np.trim_zeros(c*ENDS)
np.trim_zeros(c*ENDS,"f")  np.pad(a,1)  np.pad(a,((1,0),(0,2)),constant_values=((1,2),(3,4)))  np.pad(c,2,"edge")
np.pad(a,(1,2),"reflect")  np.pad(c,5,"symmetric")  np.pad(c,(3,6),"wrap")  np.pad(a,1,"linear_ramp",end_values=0.5)
np.pad(a,((2,1),(0,3)),"mean",stat_length=2)  np.pad(c,(1,2),"constant",constant_values=f)  np.pad(c,{0:(1,2)})
np.lib.stride_tricks.sliding_window_view(c,2)

np.dot(a,c)  np.dot(h,m)  np.dot(f,a)  np.dot(c,e)  np.vdot(a,b)  np.inner(a,b)  np.inner(f,a)  np.outer(c,d)
np.outer(c,[1.0,2.0])  np.kron(c,a)  np.kron([1.0,2.0],a)  np.tensordot(a,m,1)  np.tensordot(a,m,(1,0))
np.tensordot(h,y,((0,1),(0,1)))  np.cross(w,w[::-1])  np.cross(t,d,axisa=0)  np.trace(m)  np.trace(k,1,1,2)
np.diag(c,-1)  np.diag(m,1)  np.diagonal(h,0,0,2)  np.diagflat(t)  np.tril(m)  np.triu(k,1)  np.vander(c)
np.vander(c,3,True)

np.where(POS,a,b)  np.where(POS,a,0.0)  np.select([POS,~POS],[a,b])  np.select([MASK,POS],[a,2*b],f)
np.choose(IDX4,[c,e,2*c])  np.choose(CHOICE,[a,c,f])  np.compress([True,False,True],a,axis=0)  np.extract(POS,a)
np.take(a,IDX)  np.take(a,IDX,axis=1)  np.take_along_axis(a,CHOICE,axis=1)  np.partition(a.real,1)
np.sort_complex(c)  np.piecewise(a,[POS],[np.sin,lambda v: v**2])
np.piecewise(c,[IDX4>1,IDX4==1],[lambda v: 3*v,2.0])  np.piecewise(f,True,[np.exp])
np.bincount(IDX4,weights=c.real)  np.bincount(IDX4,c.real,minlength=6)

np.convolve(c,d)  np.convolve(c,d,"same")  np.convolve(d,r,"valid")  np.convolve(c,e,"same")
np.convolve(d,[1.0,2.0])  np.correlate(c,d)  np.correlate(c,d,"full")  np.correlate(d,c,"full")
np.correlate(d,c,"same")  np.correlate(c,e,"same")  np.correlate(r,c,"same")  np.correlate(d,r,"valid")
np.diff(a,2,0)  np.diff(a,prepend=0.0)  np.diff(a,axis=0,append=a[:1])  np.ediff1d(c)
np.ediff1d(c,to_begin=f,to_end=[1.0,2.0])  np.gradient(c)  np.gradient(a,2.0,f)[1]  np.gradient(a,axis=0)
np.gradient(w,RAMP,axis=0,edge_order=2)  np.gradient(w,axis=0,edge_order=2)  np.gradient(h,axis=(1,2))[0]
np.gradient(c,r[:4].real)  np.interp(0.3+np.abs(a),RAMP,w[:,0])  np.interp(IN,RAMP,w[:,0],left=7.0,right=-1.0)
np.linspace(c,e,3)  np.linspace(f,2.0,5,endpoint=False)  np.linspace(0.0,c,3,axis=1)
np.linspace(f,3.0,4,retstep=True)[1]  np.logspace(c,0.0,3)  np.logspace(f,2.0,4,base=2.0)
np.logspace(f,2.0,3,base=p)  np.geomspace(p,2*p,4)  np.geomspace(q,3.0,4,endpoint=False)

np.poly(c)  np.polyadd(c,d)  np.polysub(d,c)  np.polymul(c,d)  np.polymul([0.0,2.0],c)  np.polyval(c,f)
np.polyval(c,a)  np.polyval([1.0,2.0,3.0],a)  np.polyder(c)  np.polyder(r,2)  np.polyint(c)  np.polyint(c,2,[1.0,f])
np.polydiv(r,d)[0]  np.polydiv(r,d)[1]  np.polydiv(d,r)[1]  np.roots(c)  np.roots(c*ENDS)  np.polyfit(r,w,2)
np.polyfit(c,e,1,w=W4)

np.real(a)  np.imag(a)  np.real_if_close(a)  np.real_if_close(np.add(a.real,0j))  np.nan_to_num(a)  np.sinc(a)
np.full_like(a,f)  np.full_like(a,2.0)*a  np.full_like(a,f,shape=(2,))  np.zeros_like(a)+a  np.ones_like(a)*a
np.sinc(0*a+0.1*b)  np.emath.sqrt(-p)  np.emath.log(-p)  np.emath.log2(-p)  np.emath.log10(-p)
np.emath.logn(2.0,-p)  np.emath.power(-p,0.5)  np.emath.arccos(2*p)  np.emath.arcsin(2*p)  np.emath.arctanh(2*p)
np.apply_along_axis(lambda v: v[::-1]*v,1,a)  np.apply_along_axis(np.sum,0,h)  np.apply_along_axis(np.diag,1,a)
np.apply_over_axes(np.sum,h,[0,2])  np.apply_over_axes(np.mean,a,1)

np.einsum("ij,jk->ik",a,m)  np.einsum("ij,j",a,c)  np.einsum("ii",m)  np.einsum("bij,bjk,bk->bi",k,k,h[...,0])
np.einsum("ij->j",a)  np.einsum("ii->i",m)  np.einsum("i,i,ij->j",d,d,a)  np.einsum("ij,ij",a,b)
np.einsum("...i,...i",h,a)  np.einsum("...ij,j->i...",h,c)  np.einsum("i...->...",h)  np.einsum("ij,kj->ik",a,m)
np.einsum("ij,jk->ki",a,m)  np.einsum("i,j->ji",c,d)  np.einsum("iji->j",np.moveaxis(k,0,1))
np.einsum("ij,ij->ij",g,a)  np.einsum("ij,jk->ik",g,m)  np.einsum(a,[0,1],m,[1,2],[0,2])  np.einsum(a,[0,1],m,[1,2])
np.einsum(h,[...,0],c,[0],[...])  np.einsum("ij,jk,kl->il",a,m,n,optimize=True)  np.einsum("ij,k->k",a,d)
np.einsum("ai,bi,ci->abc",a,m,n[:2])  np.einsum("ij,ji->",t,t)  np.einsum("ij,jk->ik",a,m,dtype=complex)
np.einsum("i,i",[1.0,2.0,3.0],d)  np.einsum(",ij->ji",f,a)  np.einsum("ij, jk",a,m)  np.einsum("abij,kjl->lakb",o,k)
np.einsum("...,...",a,c)  np.einsum("B,A",c,d)  np.einsum("ij,j->ij",a,c)  np.einsum("bij,bj->bi",k,w[:2])
np.einsum("bi,bij->bj",w[:2],k)  np.einsum("ijk,ljk->il",h,h)  np.einsum("iij->j",np.moveaxis(k,0,2))

np.linalg.inv(k)  np.linalg.det(k)  np.linalg.slogdet(k)[1]  np.linalg.slogdet(k).sign*f  np.linalg.solve(m,c)
np.linalg.cholesky(HERM(m)+9*EYE)  np.linalg.cholesky(HERM(m)+9*EYE,upper=True)  np.linalg.eigh(HERM(m))[0]
np.linalg.eigvals(k)  np.linalg.eig(k)[0]  np.abs(np.linalg.eig(m).eigenvectors)
np.linalg.eigh(HERM(m),UPLO="U")[0]  np.linalg.eigvalsh(HERM(m),"U")  np.linalg.eigvalsh(HERM(m))
np.linalg.qr(w)[0]  np.linalg.qr(w,"r")  np.linalg.qr(w,mode="reduced").R  np.linalg.svd(a,compute_uv=False)
np.linalg.svd(a,full_matrices=False)[1]  np.linalg.svdvals(a)  np.linalg.pinv(a)  np.linalg.pinv(a,1e-8)
np.linalg.pinv(w,rtol=1e-8)  np.linalg.lstsq(w,r)[0]  np.linalg.lstsq(w,r)[1]  np.linalg.lstsq(a,d,rcond=None)[0]
np.linalg.lstsq(w,w[:,:2]**2)[3]  np.linalg.norm(a)  np.linalg.norm(a,axis=1)  np.linalg.norm(c,3)
np.linalg.norm(a,"fro",keepdims=True)  np.linalg.norm(a,1)  np.linalg.norm(a,-1)  np.linalg.norm(a,np.inf)
np.linalg.norm(a,-np.inf)  np.linalg.norm(a,2)  np.linalg.norm(a,-2)  np.linalg.norm(a,"nuc")
np.linalg.norm(h,ord=2,axis=(2,0),keepdims=True)  np.linalg.norm(h,axis=(0,2))  np.linalg.norm(p,1,axis=-1)
np.linalg.norm(c,np.inf)  np.linalg.norm(c,-np.inf)  np.linalg.norm(c,0)*f  np.linalg.vector_norm(a,axis=0,ord=3)
np.linalg.matrix_norm(h,ord="nuc")  np.linalg.cond(k)  np.linalg.cond(k,2)  np.linalg.cond(k,-2)
np.real(np.linalg.cond(k,1))  np.real(np.linalg.cond(m,"fro"))  np.real(np.linalg.cond(m,np.inf))
np.linalg.multi_dot([a,m,n,c])
np.linalg.multi_dot([d,a])  np.linalg.multi_dot([d,a,m])  np.linalg.multi_dot([a,m,n])  np.linalg.matrix_power(m,-2)
np.linalg.tensorinv(o[:,:2,:,:]*SIX)  np.linalg.tensorinv(y.reshape(6,2,3)+SIX.reshape(6,2,3),ind=1)
np.linalg.tensorsolve(SIX.reshape(6,2,3)+y.reshape(6,2,3),y[:,:,0].ravel())
np.linalg.tensorsolve(SIX+o[:,:2,:,:],w[:3,:2])
np.linalg.tensorsolve(np.moveaxis(SIX+o[:,:2],2,0),w[:3,:2],axes=(0,))  np.linalg.cross(w,w[::-1])
np.linalg.diagonal(h,offset=1)  np.linalg.trace(k)  np.linalg.outer(c,d)  np.linalg.matmul(a,m)
np.linalg.matrix_transpose(h)  np.linalg.tensordot(a,m,axes=1)  np.linalg.vecdot(a,b)

a.sum(0)  a.sum(axis=-1,where=POS)  a.mean(1)  a.prod()  a.cumsum(0)  a.cumprod(1)  a.std()  a.var(axis=1,ddof=1)
a.T  h.mT  a.real  a.imag  a.flatten("F")  a.ravel()  a.reshape(2,6)  a.reshape((4,3),order="F")  a.transpose(1,0)
a.swapaxes(0,1)  g.squeeze()  a.copy()  a.conj()  a.conjugate()  a.dot(c)  m.trace()  m.diagonal(1)
a.take(IDX,axis=-1)  a.repeat(2,axis=0)  a.compress([True,False,True],axis=0)  a.astype(complex)  a.round()*a
"""
#: of real arrays only: ordered, or not differentiable as functions of complex numbers
REAL = """
np.arctan2(a,b)  np.atan2(a,b)  np.cbrt(a)  np.copysign(a,b)*p  np.deg2rad(a)  np.degrees(a)  np.rad2deg(a)
np.radians(a)  np.fabs(a)  np.fmax(a,b)  np.fmin(a,b)  np.fmax(np.where(POS,a,np.nan),b)  np.fmin(a,np.nan)
np.fmod(p+9*a,p)  np.hypot(a,b)  np.ldexp(a,IDX4)  np.frexp(a)[0]  np.frexp(a)[1]*a  np.modf(9*a)[0]
np.modf(9*a)[1]*a  np.logaddexp(a,b)  np.logaddexp2(a,b)  np.maximum(a,b)  np.minimum(a,0.1)  np.mod(p,0.7)
np.remainder(p+9*b,p)  np.divmod(p,0.7)[1]  np.divmod(p,0.7)[0]*a  np.nextafter(a,b)  np.heaviside(a,b)*a
np.heaviside(0*POLY,c)  np.exp2(a)  np.float_power(p,b)  np.maximum.reduce(a,axis=1)
np.minimum.reduce(a,initial=0.1)  np.logaddexp.reduce(a)  np.logaddexp.reduce(a,axis=None)
np.logaddexp.reduce(a,axis=1,keepdims=True,initial=0.3)  np.logaddexp.reduce(a,where=POS,axis=1)  np.fmax.reduce(a)
np.fmin.reduce(np.where(MASK,np.nan,a),axis=1)  np.hypot.reduce(a,axis=0)  np.maximum.accumulate(a,axis=1)
np.logaddexp.accumulate(a)  np.logaddexp.outer(c,d)  np.divmod.outer(p,q)[1]  np.arctan2.outer(c,d)

np.max(a,0)  np.amax(a,axis=1,keepdims=True)  np.min(a)  np.amin(a,(0,1))  np.max(a,axis=0,where=POS,initial=-2.0)
np.min(a,initial=0.1)  np.ptp(a,axis=0)  np.ptp(a,1,keepdims=True)  np.median(a)  np.median(h,axis=(0,2))
np.median(a,axis=1,keepdims=True)  np.quantile(a,0.3)  np.quantile(a,[0.1,0.5,1.0],axis=0)
np.quantile(h,[[0.2,0.9]],axis=(2,0),keepdims=True)  np.percentile(a,40,axis=1)  np.quantile(a,0.3,method="hazen")
np.quantile(a,0.3,method="nearest")  np.percentile(a,[5,95],axis=1,method="median_unbiased")
np.quantile(a,0.4,axis=1,weights=W4,method="inverted_cdf")  np.quantile(a,0.6,weights=p0,method="inverted_cdf")
np.quantile(a,0.25,0,method="averaged_inverted_cdf")  np.nanmedian(np.where(POS,a,np.nan),axis=1)
np.nanquantile(np.where(POS,a,np.nan),[0.2,0.7],axis=0)  np.nanpercentile(np.where(POS,a,np.nan),30)
np.nanmax(np.where(POS,a,np.nan),axis=0)  np.nanmin(np.where(POS,a,np.nan))  np.nanmax(a,where=POS,initial=-1.0)

np.clip(a,-0.4,0.5)  np.clip(a,b-1,b+0.5)  np.clip(a,a_min=0,a_max=None)  np.clip(a,max=0.2)  np.sort(a)
np.sort(a,0)  np.sort(a,axis=None)  np.partition(a,1,axis=0)  np.partition(a,[2,5],axis=None)  np.unique(a)
np.unique(np.round(a),return_counts=True)[1]*f  np.unique(np.concatenate([c,c,e]),return_index=True)[0]
np.unique(np.stack([d,2*d,d]),axis=0)  np.union1d(c,d)  np.intersect1d(np.concatenate([c,d]),np.concatenate([d,e]))
np.setdiff1d(np.concatenate([c,d]),c)  np.setxor1d(np.concatenate([c,d]),c)  np.trim_zeros(np.maximum(c,0))
np.histogram_bin_edges(a)  np.histogram(a,4)[1]  np.histogram(a,4)[0]*f  np.histogram(a,4,density=True)[0]
np.histogram(a,[-1,0,1])[0]*f  np.unique_values(a)  np.unique_all(a).values  np.unique_counts(a).values
np.unique_inverse(a)[0]  np.pad(a,((0,1),(2,0)),"maximum")  np.pad(a,2,"minimum",stat_length=2)
np.pad(a,1,"median")

np.interp(a,RAMP,w[:,0])  np.interp(3*a,r,RAMP)  np.interp(r[1:3]+0.05,r,w[:,1])  np.interp(9*a,r,w[:,0],period=3.1)
np.interp(a,[0.5],f[None])  np.unwrap(9*c)  np.unwrap(9*a,axis=0,period=5.0)  np.i0(a)  np.i0(30*a)  np.angle(a)*f
np.polyfit(r,w[:,0],1)  np.gradient(a,np.cumsum(q),axis=1,edge_order=2)  np.gradient(a,np.cumsum(q),axis=1)

a.max()  a.min(axis=1)  a.clip(0)  a.clip(-0.3,0.3)  a[a>0]  np.argsort(c)*c  a.argmax()*a  a.argpartition(2)*a
"""
#: of complex arrays only
COMPLEX = """
np.angle(a)  np.angle(a,deg=True)  np.roots(c)  np.poly(np.concatenate([c,c.conj()]))
"""
#: derivative zero: the value is a plain one
ZERO = """
np.all(a)  np.allclose(a,b)  np.any(a,axis=0)  np.argmax(a,axis=0)  np.argmin(a)  np.argpartition(a,2)
np.argsort(a)  np.argwhere(a>0)  np.around(a)  np.array2string(a)  np.array_repr(a)  np.array_str(a)
np.array_equal(a,b)  np.array_equiv(a,b)  np.can_cast(a.dtype,complex)  np.ceil(a)  np.common_type(a,b)
np.count_nonzero(a)  np.diag_indices_from(m)  np.digitize(a,RAMP)  np.einsum_path("ij,j",a,c)  np.empty_like(a)
np.equal(a,b)  np.fix(a)  np.flatnonzero(a)  np.floor(a)  np.floor_divide(a,b)  np.greater(a,b)
np.greater_equal(a,b)  np.iscomplex(a)  np.iscomplexobj(a)  np.isclose(a,b)  np.isfinite(a)  np.isin(a,b)
np.isinf(a)  np.isnan(a)  np.isneginf(a)  np.isposinf(a)  np.isreal(a)  np.isrealobj(a)  np.less(a,b)
np.less_equal(a,b)  np.lexsort((c,e))  np.logical_and(a,b)  np.logical_not(a)  np.logical_or(a,b)
np.logical_xor(a,b)  np.may_share_memory(a,b)  np.min_scalar_type(a)  np.nanargmax(a)  np.nanargmin(a,axis=1)
np.ndim(a)  np.nonzero(a)  np.not_equal(a,b)  np.ones_like(a)  np.result_type(a,1.0)  np.rint(a)  np.round(a,1)
np.searchsorted(r,a)  np.shape(a)  np.shares_memory(a,b)  np.signbit(a)  np.size(a,0)  np.spacing(a)
np.tril_indices_from(m)  np.triu_indices_from(m)  np.trunc(a)  np.where(a>0)  np.zeros_like(a,shape=(2,))
np.linalg.matrix_rank(m)  np.linalg.matrix_rank(m,1e-3)  np.greater.outer(c,d)  np.logical_or.reduce(a)
np.histogram(a,3,(-1,1))[1]  np.bincount(IDX4)  a>b  a.any()  a.nonzero()  r.searchsorted(a)
"""
#: NoDerivativeError, and what its message names
REFUSED = {
    "np.linalg.qr(w,'raw')": "raw",
    "np.cross(a[:,:2],b[:,:2])": "cross",
    "np.histogram2d(c,e)": "histogram2d",
    "np.histogramdd(a)": "histogramdd",
    "np.histogram(c,weights=c)": "bincount",
    "np.histogram_bin_edges(c,'auto')": "rule for the bins",
    "np.quantile(a,f)": "second argument",
    "np.median(a,out=OUT)": "np.median into",
    "np.pad(c,1,'reflect',reflect_type='odd')": "odd",
    "np.poly(m)": "np.poly of a matrix",
    "np.polyfit(c,e,1,cov=True)": "cov",
    "np.ravel(a[:,::2],'K')": "order",
    "np.exp(a,where=POS)": "np.where",
    "np.add(a,b,out=OUT)": "a = a \\+ b",
    "np.subtract.reduce(a,axis=(0,1))": "subtract.reduce",
    "np.add.at(OUT,IDX,a)": "bincount",
    "np.interp(c,r,r,period=f)": "period",
    "np.copyto(OUT,a)": "np.copyto",
    "np.fill_diagonal(m,1.0)": "np.fill_diagonal",
    "np.place(OUT,POS,a)": "np.place",
    "np.put(OUT,IDX,a)": "np.put",
    "np.put_along_axis(OUT,CHOICE,a,1)": "np.put_along_axis",
    "np.putmask(OUT,POS,a)": "np.putmask",
    "np.save('file',a)": "np.save",
    "np.savez('file',a)": "np.savez",
    "np.savez_compressed('file',a)": "np.savez",
    "np.savetxt('file',a)": "np.savetxt",
    "np.array([f,f])": "plain NumPy array",
    "np.asarray(a)": "plain NumPy array",
    "np.vectorize(np.sin)(a)": "plain NumPy array",
    "np.frompyfunc(abs,1,1)(a)": "universal function",
    "a.item()": "item",
    "a.tolist()": "tolist",
    "np.matmul(k,k,axes=[(0,1),(0,1),(0,1)])": "axes",
    "np.einsum('ij->i',a,out=OUT)": "np.einsum into",
}
#: functions that newer versions of NumPy have no more
GONE = frozenset(["in1d", "trapz"])
#: functions of integers, dates and booleans, which nobody differentiates
NOT_OF_FLOATS = frozenset(
    "bitwise_and bitwise_count bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift "
    "bitwise_xor busday_count busday_offset datetime_as_string gcd invert is_busday isnat ix_ lcm left_shift packbits "
    "ravel_multi_index right_shift unpackbits unravel_index".split()
)


def constants():
    """What the expressions may use besides the pool."""
    rng = np.random.default_rng(3)
    six = np.reshape(3 * np.eye(6), (3, 2, 2, 3))
    return {
        "np": np, "POS": POOL["b"][0] > -0.3, "MASK": POOL["b"][0] > 0.4, "IDX": np.array([2, 0, 2]), "SIX": six,
        "IDX4": np.array([1, 0, 2, 1]), "CHOICE": np.array([[1, 0, 2, 2], [0, 0, 1, 2], [2, 1, 0, 0]]),
        "EYE": np.eye(4), "POLY": np.arange(4.0), "POLYC": np.arange(3) + 0.5j, "RAMP": np.cumsum(np.arange(5.0)) - 3,
        "ENDS": np.array([0, 1.0, 1, 0]), "W4": np.array([0.5, 1.5, 1.0, 2.0]), "W42": rng.random((4, 2)) + 1,
        "IN": np.array([-4.0, -2.5, 0.5, 9.0]), "p0": POOL["p"][0], "OUT": np.zeros((3, 4)),
        "HERM": lambda x: 0.5 * (x + np.conj(x.T)),
    }  # fmt: skip


SCOPE = constants()


def codes(*texts):
    return [code for text in texts for code in re.split(r"\s\s+|\n", text.strip()) if code]


def split(code, complex_numbers):
    """The function of its arrays that an expression is, and their values."""
    compiled = compile(code, code, "eval")
    bare = re.sub(r'"[^"]*"|\'[^\']*\'', "", code)
    names = sorted(set(re.findall(r"(?<![\w.])[a-z]\b(?![(\w=])", bare)) & set(POOL))

    def function(*xs):
        return eval(compiled, {**SCOPE, **dict(zip(names, xs, strict=True))})

    return function, [POOL[n][complex_numbers] for n in names]


def weights(like, seed=5):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(np.shape(like))
    return w + 1j * rng.standard_normal(w.shape) if np.iscomplexobj(like) else w


def difference(f, xs, us, step=3e-4):
    """Df[u] by central differences of order 8."""
    total = 0.0
    for k, weight in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1):
        ahead, behind = (f(*[x + sign * k * step * u for x, u in zip(xs, us, strict=True)]) for sign in (1, -1))
        total = total + weight / step * (np.asarray(ahead) - np.asarray(behind))
    return total


def close(found, wanted, what, tolerance=1e-8):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, (what, found.shape, wanted.shape)
    assert found.dtype == wanted.dtype or what != "value", (found.dtype, wanted.dtype)
    error = np.max(np.abs(found - wanted) / (1 + np.max(np.abs(wanted), initial=0)), initial=0)
    assert error < tolerance, f"{what}: wrong by {error:.1e}"


def by_numpy(f, xs):
    try:
        return f(*xs)
    except TypeError as error:
        pytest.skip(f"this version of NumPy says: {error}")


def check(code, complex_numbers):
    f, xs = split(code, complex_numbers)
    us = [weights(x, seed=i) for i, x in enumerate(xs)]
    plain = by_numpy(f, xs)
    value, pushed = nf.jvp(f, tuple(xs), tuple(us))
    close(value, plain, "value", 1e-13)
    close(pushed, difference(f, xs, us), "tangent")
    w = weights(value)

    def gradient(*xs):
        return nf.vjp(f, *xs)[1](w)

    pulled, second = nf.jvp(gradient, tuple(xs), tuple(us))
    assert all(p.shape == x.shape and p.dtype == x.dtype for p, x in zip(pulled, xs, strict=True))
    there = np.sum((np.conj(w) * pushed).real)
    back = sum(np.sum((np.conj(u) * p).real) for u, p in zip(us, pulled, strict=True))
    assert abs(there - back) < 1e-10 * (1 + abs(back)), "the modes do not transpose each other"
    for k, found in enumerate(second):
        close(found, difference(lambda *xs, k=k: gradient(*xs)[k], xs, us), "second derivative", 1e-7)


def exists(code):
    """Whether this version of NumPy has every function that an expression names."""
    try:
        return all(eval(name, {"np": np}) is not None for name in re.findall(r"np(?:\.[a-zA-Z_]\w*)+", code))
    except AttributeError:
        return False


def present(*texts):
    return [code for code in codes(*texts) if exists(code)]


@pytest.mark.parametrize("code", present(BOTH, REAL))
def test_real(code):
    check(code, False)


@pytest.mark.parametrize("code", present(BOTH, COMPLEX))
def test_complex(code):
    check(code, True)


@pytest.mark.parametrize("code", present(ZERO))
def test_derivative_zero(code):
    f, xs = split(code, False)
    seen = []

    def traced(*xs):
        seen.append(f(*xs))
        return sum(np.sum(x) for x in xs)

    if xs:
        nf.vjp(traced, *xs)
        assert "Traced" not in repr(seen[0]) and type(seen[0]) is type(f(*xs)), seen


@pytest.mark.parametrize("code", [code for code in REFUSED if exists(code)])
def test_refused(code):
    f, xs = split(code, False)
    before = SCOPE["OUT"].copy()
    with pytest.raises(NoDerivativeError, match=REFUSED[code]):
        nf.vjp(f, *xs)
    assert np.array_equal(SCOPE["OUT"], before)


def test_every_function_of_numpy_is_in_a_table():
    text = " ".join([BOTH, REAL, COMPLEX, ZERO, *REFUSED])
    known = set(re.findall(r"np\.((?:linalg\.|fft\.)?\w+)", text)) | NOT_OF_FLOATS | GONE
    missing = []
    for prefix, module in (("", np), ("linalg.", np.linalg)):
        for name in dir(module):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function = getattr(module, name)
            if isinstance(function, np.ufunc) or hasattr(function, "_implementation"):
                missing += [prefix + name] * (prefix + name not in known and not name.startswith("_"))
    assert not missing


# -- how functions are called ------------------------------------------------------------------------
LISTS = """
np.dot([1.0,2.0,3.0],a)  np.matmul([[1.0,2j,3.0]],a)  np.multiply([1j,2.0,3.0,1.0],a)  np.add([[1],[2],[3]],a)
np.add([f,2.0],f)  np.inner([1.0,2.0,3.0,4.0],a)  np.vdot([1j,2.0,3.0],d)  np.tensordot([[1.0,2.0,3.0]],a,1)
np.outer([f,1.0],c)  np.cross([1.0,2.0,3.0],w)  np.linalg.solve([[2.0,1.0,0.0],[0.0,1.0,1.0],[1.0,1.0,3.0]],a)
np.concatenate([a,[[1.0,2.0,3.0,4.0]]])  np.polyval(c,[1.0,2.0])  np.subtract.outer([1.0,2.0],a)
np.moveaxis(h,[0,1],[2,0])  np.convolve([1j,2.0],c)  np.linalg.vecdot([1j,2.0,1.0,0.5],a)  np.cov(d,[1.0,2.0,0.5])
np.sum(a=a,axis=0)  np.dot(a=a,b=c)  np.median(a=a.real,axis=1)  np.linalg.norm(x=a)  np.ravel(a.T,order="K")
np.where([[True],[False],[True]],a,[1.0,2.0,3.0,4.0])  np.stack([c,[1.0,2.0,3.0,4.0]])
"""


@pytest.mark.parametrize("code", present(LISTS))
def test_lists_and_names_of_arguments(code):
    check(code, False)
    check(code, True)


@pytest.mark.parametrize("code", present(BOTH, REAL)[::9])
def test_third_derivatives(code):
    """d³/ds³ of a smooth function of the expression on a line, against differences of the second."""
    f, xs = split(code, False)
    us = [weights(x, seed=i) for i, x in enumerate(xs)]
    w = weights(f(*xs))

    def on_the_line(s):
        y = f(*[x + s * u for x, u in zip(xs, us, strict=True)])
        return np.sum(np.real(np.conj(w) * y)) ** 2

    def derivative(g):
        return lambda s: nf.jvp(g, (s,), (np.ones(()),))[1]

    second, zero = derivative(nf.grad(on_the_line)), np.zeros(())
    close(derivative(second)(zero), difference(second, [zero], [1.0]), "third derivative", 1e-6)


@pytest.mark.parametrize("code", present(BOTH, REAL))
def test_wrapped_constants(code):
    """The arrays of `nestfold.backends.traced(np)` go the same ways; the values are NumPy's."""
    f, xs = split(code, False)
    if "emath" not in code:
        wrapped = nf.backends.traced(np)
        plain = by_numpy(f, xs)
        found = f(*[wrapped.asarray(x) for x in xs])
        close(backend.to_numpy(found), np.asarray(plain), "value", 1e-13)


def test_stand_ins_of_captured_arrays_decide_too():
    """What a hoisted function computes from values, an order or a mask, follows what is put in for them."""
    x, other = np.array([3.0, 1.0, 2.0]), np.array([1.0, 2.0, 30.0])

    def f(y):
        def inner(s):
            parts = [np.median(y), np.sort(y)[0], np.sum(y, where=y > 1.5), np.trim_zeros(np.maximum(y - 1, 0))[0]]
            return s * np.stack([*parts, np.interp(2.5, np.sort(y), y), np.where(y > 2)[0][0] * y[0]])

        g, captured = backend.hoist(inner, np.array(1.0))
        (replaced,) = (c for c in captured if c.shape == (3,))
        stand_in = [other if c is replaced else c for c in captured]
        return np.sum(y), g(tuple(stand_in), np.array(1.0))

    (_, found), _ = nf.vjp(f, x)
    assert np.allclose(found, [2.0, 1.0, 32.0, 1.0, np.interp(2.5, other, other), 2.0])


def test_single_precision_stays_single():
    x, m = np.array([0.5, 1.5, 2.5], dtype=np.float32), 3 * np.eye(3, dtype=np.float32)

    def f(x):
        y = np.median(x) + np.quantile(x, 0.25) + np.nanmean(x) + np.std(x, where=x > 0) + np.ptp(x) + np.sinc(x)[0]
        y = y + np.convolve(x, x)[1] + np.cbrt(x)[0] + np.exp2(x)[1] + np.logaddexp2(x, x)[0] + np.i0(x)[0]
        y = (
            y
            + np.gradient(x, edge_order=2)[0]
            + np.pad(x, 2, "mean")[0]
            + np.insert(x, 1, x[2])[1]
            + np.polyval(x, x)[0]
        )
        y = y + np.einsum("i,ij,j", x, m, x) + np.linalg.cond(m * x) + np.linspace(x, 2 * x, 3)[1, 1] + np.cov(x)
        return y + np.trapezoid(x) + np.block([[x[:2]], [x[1:]]])[1, 0] + np.vander(x)[0, 0] + np.unwrap(x)[0]

    value, gradient = nf.value_and_grad(f)(x)
    assert value.dtype == gradient.dtype == nf.hvp(f, (x,), (x,))[0].dtype == np.float32


@pytest.mark.parametrize("text", ["ij,jk->ik", "...ij,j->i...", "iij->j", "ij,kj,k", "ai,bi,ci->abc"])
def test_einsum_of_another_library(text):
    """The namespace has it wherever it is asked for, though the standard has none."""
    pytest.importorskip("array_api_strict")
    other, rng = get_backend("array_api_strict"), np.random.default_rng(0)
    sizes, count = {"i": 3, "j": 3, "k": 4, "a": 2, "b": 5, "c": 2}, text.split("->")[0].count(",") + 1
    xs = [rng.standard_normal([sizes[c] for c in part if c != "."]) for part in text.split("->")[0].split(",")[:count]]

    def f(*xs):
        return nf.namespace(xs[0]).einsum(text, *xs)

    value, push = nf.linearize(f, *map(other.asarray, xs))
    assert np.allclose(other.to_numpy(value), np.einsum(text, *xs))
    tangent = sum(np.einsum(text, *xs) for _ in xs)
    assert np.allclose(other.to_numpy(push(*map(other.asarray, xs))), tangent)


@pytest.mark.parametrize(("text", "shapes"), [
    ("ij,jk->iz", [(2, 3), (3, 4)]), ("ij,jk->ii", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (2, 4)]), ("ijk", [(2, 3)]),
    ("ij,j", [(2, 3)]), ("ii", [(2, 3)]), ("i$", [(2, 3)]), ("i", [(2, 3)]),
])  # fmt: skip
def test_einsum_refuses_what_numpy_refuses(text, shapes):
    xs = [np.ones(shape) for shape in shapes]
    for f in (np.einsum, lambda text, *xs: nf.vjp(lambda *xs: np.einsum(text, *xs), *xs)):
        with pytest.raises(ValueError):
            f(text, *xs)


def test_einsum_of_a_matrix_product_is_one_product():
    """Speed: no reshape, no transposition, one node of the tape for "ij,jk->ik"."""
    a, b = np.ones((3, 4)), np.ones((4, 5))
    for text in ("ij,jk->ik", "ij,jk", "ij, jk -> ik"):
        nodes = []
        nf.vjp(lambda a, b, text=text: (np.einsum(text, a, b), nodes.append(len(a._tape.nodes)))[0], a, b)  # noqa: B023
        assert nodes == [3]  # two inputs and the product


def test_methods_that_write_are_missing_with_advice():
    def f(y):
        for name in ("sort", "fill", "partition", "put", "resize"):
            with pytest.raises(AttributeError, match="np"):
                getattr(y, name)
        assert not hasattr(y, "sort") and not hasattr(y, "__array_interface__")
        return np.sum(y)

    nf.grad(f)(np.ones(3))


def test_kernels_of_cupy_go_the_same_way():
    """CuPy calls a hook of the traced array with its own universal function, of which the name is all that counts."""

    class Kernel:
        def __init__(self, name):
            self.__name__ = name

    ns, x = backend.traced_namespace, np.array([0.5, 1.5])
    for name, wanted in (("cupy_exp", np.exp(x)), ("cupy_arctan", 1 / (1 + x * x)), ("cupy_cbrt", np.cbrt(x) / x / 3)):
        kernel = Kernel(name)
        found = nf.grad(lambda x, kernel=kernel: np.sum(ns.array_ufunc(kernel, "__call__", (x,))))(x)
        assert np.allclose(found, wanted)


# -- wrong arguments -----------------------------------------------------------------------------------
#: calls that NumPy refuses: wrong axes, too many axes, wrong lengths, negative counts, unknown modes
WRONG = """
np.take(c,1,axis=1)  np.take(a,IDX,axis=-3)  np.gradient(c,axis=1)  np.gradient(a,axis=(0,0))
np.gradient(a,axis=0,edge_order=3)  np.gradient(a,c,axis=0)  np.gradient(a,a,axis=0)  np.gradient(a[:1])
np.gradient(f,1.0,2.0)  np.gradient(a,1.0,2.0,3.0)  np.median(c,axis=1)  np.nanmedian(c,axis=-2)
np.percentile(c,30,axis=1)  np.quantile(c,0.3,axis=1)  np.nanquantile(c,0.3,axis=1)  np.median(a,axis=(0,0))
np.quantile(c,1.5)  np.percentile(c,-1)  np.quantile(a,0.3,axis=1,weights=d,method="inverted_cdf")
np.quantile(c,0.3,method="no")  np.quantile(c,0.3,weights=W4)  np.rollaxis(c,1)  np.rollaxis(h,1,4)  np.rollaxis(h,-4)
np.rollaxis(h,0,-4)  np.average(f,0,f)  np.average(a,0,c)  np.average(a,2,c)  np.average(a,weights=c)
np.average(a,0,d-d)  np.average(a,(0,1),b.T)  np.average(c,1)  np.split(f,2)  np.split(a,2)  np.split(a,2,axis=2)
np.split(c,0)  np.hsplit(f,2)  np.vsplit(c,2)  np.dsplit(a,2)  np.array_split(a,2,axis=2)  np.polyval(f,c)
np.polyval(a,d)  np.polyadd(a,c)  np.polymul(a,c)  np.polymul(c,a)  np.polyder(f)  np.polyder(c,-1)  np.polyint(a)
np.polyint(c,-1)  np.polyint(c,2,[1.0,2.0][:0])  np.polyint(c,3,[1.0,2.0])  np.polyint(f)  np.roots(a)  np.roots(h)
np.poly(a)  np.poly(h)  np.poly(a[:0])  np.vander(a)  np.vander(f)  np.vander(c,-1)  np.polyfit(a,c,1)
np.polyfit(c,r,1)  np.polyfit(c,e,-1)  np.polyfit(c[:0],e[:0],1)  np.polyfit(c,e,1,w=d)  np.polyfit(c,h,1)
np.polyfit(c,e,1,w=m)  np.polyfit(f,f,1)  np.convolve(a,c)  np.convolve(c,a)  np.convolve(c[:0],c)
np.convolve(c,d,"no")  np.correlate(a,c)  np.correlate(f,c)  np.correlate(c,c[:0])  np.correlate(c,d,"no")  np.cov(h)
np.cov(c,h)  np.cov(c,r)  np.cov(a,ddof=0.5)  np.corrcoef(h)  np.corrcoef(c,d)  np.cov(a,fweights=[1,2])
np.cov(a,aweights=a)  np.cov(a,fweights=[1.5,1,1,1])  np.cov(a,fweights=[1,-2,1,1])
np.cov(a,aweights=[1.0,-2.0,1.0,1.0])  np.cov(a,aweights=[1.0,2.0])  np.interp(c,r,w)  np.interp(c,w,r)
np.interp(c,r,d)  np.interp(c,c[:0],c[:0])  np.interp(c,f,f)  np.interp(c,r,r,period=0)  np.linalg.lstsq(a,h)
np.linalg.lstsq(c,c)  np.linalg.lstsq(a,c)  np.linalg.lstsq(h,c)  np.linalg.lstsq(a,f)  np.matvec(d,a)
np.matvec(d,w[:2])  np.vecmat(d,d)  np.matvec(a,d)  np.matvec(a,f)  np.vecmat(d,c)  np.vecmat(c,a)  np.vecmat(f,a)
np.matvec(a,c[:1])  np.vecmat(d[:1],a)  np.vecdot(c,d)  np.vecdot(c[:1],c)  np.vdot(c[:1],c)  np.inner(c[:1],c)
np.dot(c[:1],c)  np.dot(a,d)  np.inner(a,d)  np.vdot(c,d)  np.matmul(a,f)  np.matmul(f,a)  np.matmul(a,a)
np.tensordot(a,d,1)  np.tensordot(a,c,3)  np.tensordot(a,m,((0,1),(0,)))  np.tensordot(a,m,(2,0))
np.linalg.multi_dot([c[:1],m,m])  np.linalg.multi_dot([a,m,c[:1]])  np.linalg.multi_dot([a])
np.linalg.multi_dot([a,c,m])  np.linalg.multi_dot([a,m,h])  np.linalg.multi_dot([f,m,m])  np.linalg.multi_dot([a,a])
np.diff(c,-1)  np.diff(f)  np.diff(c,axis=1)  np.diff(a,axis=2,prepend=0.0)  np.diff(a,append=c)
np.ediff1d(c,to_end=1j)  np.pad(f,-1)  np.pad(c,-1)  np.pad(c,1.5)  np.pad(a,(1,2,3))  np.pad(h,(1,2,3))
np.pad(a,((1,2),(1,2),(1,2)))  np.pad(f,((1,2),(1,2)))  np.pad(c,1,"no")  np.pad(c,1,"constant",end_values=1)
np.pad(c,1,"mean",constant_values=1)  np.pad(c,1,"edge",end_values=1)  np.pad(c,-1,"edge")  np.pad(c,-1,"mean")
np.pad(c,1,"mean",stat_length=-1)  np.pad(c,1,constant_values=(1,2,3))  np.pad(c,1,constant_values=d)
np.pad(c[:0],1,"edge")  np.pad(c,1,"maximum",stat_length=0)  np.pad(c[:0],1,"linear_ramp")  np.pad(c[:0],1,"mean")
np.take_along_axis(a,IDX4,0)  np.take_along_axis(a,CHOICE,2)  np.take_along_axis(a,CHOICE+9,0)
np.take_along_axis(a,CHOICE+0.5,0)  np.trace(c)  np.trace(m,0,0,0)  np.diagonal(c)  np.diagonal(m,0,1,1)
np.diagonal(m,0,0,2)  np.diag(f)  np.diag(h)  np.linalg.diagonal(c)  np.linalg.trace(c)  np.swapaxes(a,0,2)
np.swapaxes(a,-3,0)  np.moveaxis(a,0,2)  np.moveaxis(a,(0,1),0)  np.moveaxis(a,(0,0),(0,1))  np.transpose(a,(0,0))
np.transpose(a,(0,))  np.transpose(h,(0,1,3))  np.squeeze(a,0)  np.squeeze(g,2)  np.reshape(a,(5,2))
np.reshape(a,(-1,-1))  np.reshape(a,(-1,5))  np.reshape(a,12,order="Q")  np.ravel(a,"Q")  np.expand_dims(a,4)
np.expand_dims(a,(0,0))  np.broadcast_to(a,(3,))  np.broadcast_to(a,(2,4))  np.broadcast_arrays(a,d)  np.flip(a,2)
np.flipud(f)  np.fliplr(c)  np.rot90(c)  np.rot90(a,1,(0,0))  np.roll(a,1,2)  np.repeat(a,-1)  np.repeat(a,[1,2],0)
np.repeat(a,2,2)  np.tile(a,-1)  np.tile(a,(1,-2))  np.delete(a,3,axis=0)  np.delete(a,0,axis=2)
np.insert(a,9,1.0,axis=0)  np.insert(c,9,1.0)  np.insert(a,1,d,axis=0)  np.append(a,c,axis=0)  np.append(c,f,axis=0)
np.concatenate([])  np.concatenate([a,c])  np.concatenate([a,b],2)  np.concatenate([f,f])
np.concatenate([a,m],axis=1)  np.stack([a,m])  np.stack([a,b],3)  np.stack([a,b],axis=-4)  np.stack([])
np.hstack([c,a])  np.vstack([a,d])  np.dstack([a,m])  np.column_stack([a,c])  np.block([[a,c]])  np.block([[a],c])
np.block([])  np.block([[a],[c[:2]]])  np.block((a,b))  np.unstack(f)  np.unstack(a,axis=2)
np.meshgrid(c,d,indexing="no")  np.trim_zeros(c,"q")  np.trim_zeros(c,axis=1)  np.resize(a,(-1,2))
np.atleast_1d(f).sum(1)  np.compress([True,False],a,axis=2)  np.compress([True]*9,c)  np.extract([True]*9,c)
np.choose(IDX4,[c,c])  np.choose(IDX4,[c,d,c])  np.select([POS],[a,b])  np.select([],[])
np.select([POS],[c,])*h[:,:2]  np.select([a],[b])  np.select([a>0],[d])  np.where(POS,a)  np.where(POS,a,d)
np.piecewise(a,[POS],[1.0,2.0,3.0])  np.piecewise(a,[POS,POS],[np.sin])  np.piecewise(c,[POS],[np.sin])
np.bincount(IDX4,weights=d)  np.bincount(IDX4-9,weights=c)  np.bincount(IDX4,weights=m)
np.bincount(IDX4,weights=c,minlength=-1)  np.bincount(POS,weights=c)  np.partition(c,9)  np.partition(c,1,axis=1)
np.sort(a,2)  np.sort(f)  np.sort(f,axis=0)  np.unique(a,axis=2)  np.histogram(c,0)  np.histogram(c,[2.0,1.0])
np.histogram(c,range=(2,1))  np.histogram_bin_edges(c,-1)  np.digitize(c,a)  np.searchsorted(a,c)
np.apply_along_axis(np.sum,2,a)  np.apply_along_axis(np.sum,0,f)  np.apply_over_axes(np.sum,a,2)  np.sum(a,axis=2)
np.sum(a,axis=(0,0))  np.sum(a,where=[True,False])  np.prod(a,axis=2)  np.prod(a,axis=(0,0))  np.mean(a,axis=2)
np.mean(a,where=[True,False])  np.var(a,axis=2)  np.std(a,axis=2)  np.std(a,axis=(0,0))  np.max(a,axis=2)
np.max(c[:0])  np.max(a,where=POS)  np.min(a,axis=(0,0))  np.ptp(a,axis=2)  np.cumsum(a,2)  np.cumprod(a,2)
np.cumulative_sum(a)  np.cumulative_prod(a)  np.cumulative_sum(a,axis=2)  np.nansum(a,axis=2)  np.nanmean(a,axis=2)
np.nanstd(a,axis=2)  np.nanmax(c[:0])  np.nanmin(a,axis=2)  np.nancumsum(a,2)  np.nanprod(a,axis=(0,0))
np.clip(a,c,d)  np.trapezoid(f)  np.trapezoid(a,axis=2)  np.trapezoid(c,d)  np.trapezoid(a,d)  np.unwrap(f)
np.unwrap(a,axis=2)  np.linspace(c,e,-1)  np.linspace(c,d)  np.linspace(c,e,3,axis=2)  np.linspace(c,e,2.5)
np.logspace(c,d)  np.logspace(c,e,-1)  np.geomspace(c,0.0)  np.geomspace(p,q[:3])  np.geomspace(p,p,-1)
np.geomspace(p,p,3,axis=4)  np.cross(a,a)  np.cross(c,w)  np.cross(w,w,axis=2)  np.cross(f,d)  np.cross(w,w,axisc=3)
np.kron(a)  np.outer(a)  np.linalg.outer(a,c)  np.linalg.norm(a,axis=2)  np.linalg.norm(a,"fro",axis=1)
np.linalg.norm(c,"fro")  np.linalg.norm(h,1)  np.linalg.norm(a,3)  np.linalg.norm(a,"no")
np.linalg.norm(a,axis=(0,0))  np.linalg.norm(h,axis=(0,1,2))  np.linalg.norm(c,"nuc")  np.linalg.norm(h,"fro")
np.linalg.norm(a,axis=(0,2))  np.linalg.norm(a,0)  np.linalg.cond(c)  np.linalg.cond(a,1)  np.linalg.cond(m,"no")
np.linalg.inv(a)  np.linalg.inv(c)  np.linalg.det(a)  np.linalg.slogdet(a)  np.linalg.solve(a,c)  np.linalg.solve(m,d)
np.linalg.cholesky(a)  np.linalg.eigh(a)  np.linalg.eigh(m,"Q")  np.linalg.eigvalsh(a)  np.linalg.eig(a)
np.linalg.eigvals(c)  np.linalg.qr(c)  np.linalg.qr(w,"no")  np.linalg.svd(c)  np.linalg.svdvals(c)  np.linalg.pinv(c)
np.linalg.matrix_power(a,2)  np.linalg.matrix_power(m,1.5)  np.linalg.tensorinv(h)  np.linalg.tensorinv(m,0)
np.linalg.tensorsolve(h,c)  np.linalg.matrix_norm(c)  np.linalg.vector_norm(a,axis=2)  np.linalg.matrix_transpose(c)
np.matrix_transpose(c)  np.tril(c,[1,2])  np.triu(f)  np.einsum("ij,j",a,d)  np.einsum("ij",c)  np.add(a,d)
np.add.reduce(a,axis=2)  np.add.accumulate(a,axis=2)  np.add.accumulate(f)  np.add.reduceat(r,[0,9])
np.add.reduceat(r,[-1])  np.add.reduceat(f,[0])  np.subtract.reduce(a,axis=2)  np.subtract.accumulate(a,axis=2)
np.maximum.reduce(c[:0])  np.subtract.reduce(c[:0])  np.logaddexp.reduce(a,axis=2)  np.add(a)  np.add.outer(a)
np.sin(a,b,c)  np.full_like(a,c,shape=(3,))  np.full_like(a,f,shape=(-1,))  np.ldexp(a,0.5)  np.arctan2(a,d)  a.sum(2)
a.reshape(5)  a.take(99)  a.dot(d)  c.trace()  c.diagonal()  a.swapaxes(0,2)  a.squeeze(0)  a.std(2)
a.mean(axis=(0,0))  a.transpose(0,0)  a.transpose(1)  a.repeat(-1)  a.repeat(2,axis=2)  a.compress([True],axis=2)
a.cumsum(2)  a.astype("no")  a[3]  a[0,0,0]  a[IDX4,IDX]  a[:,[9]]  a[POS[:2]]  len(f)  iter(f)
np.nan_to_num(a,nan="x")  np.lib.stride_tricks.sliding_window_view(c,9)  np.sinc("x")  np.i0(1j*c)
np.copysign(1j*a,a)  np.maximum(a,d)  np.astype(a,"no")
"""
#: calls at the edge of what NumPy takes: arrays of more or fewer axes, no entries, axes by position
EDGES = """
np.polyval(a,c)  np.polyval(a,2.0)  np.polyval(h,a)  np.polyval(c[:0],d)  np.polyadd(f,t)  np.polyadd(t,t)
np.polyadd(f,c)  np.polymul(f,c)  np.polymul(f,2.0)  np.polyder(a[:3,:2])  np.polyder(c,9)  np.polyder(c,0)
np.polyint(c,0)  np.roots(c[:1])  np.polyint(c,1,[1.0,2.0])  np.polyint(c,k=f)  np.vander(c,0)  np.convolve(f,c)
np.convolve(f,2.0)  np.diff(c,0)  np.diff(c,9)  np.pad(f,1)  np.pad(f,(1,2))  np.pad(a,(1,))  np.pad(a,((1,),(2,)))
np.pad(c[:0],1)  np.average(h,(2,0),W42)  np.average(c,0,e)  np.take_along_axis(a,CHOICE,1)
np.take_along_axis(a,IDX4,None)  np.take_along_axis(a,CHOICE)  np.average(a,(1,0),b.T)  np.rollaxis(h,-1)
np.rollaxis(h,1,-1)  np.rollaxis(h,0,3)  np.gradient(a,axis=-1)  np.median(a,axis=(-1,0))  np.median(a,axis=[0])
np.quantile(a,0.5,axis=-1)  np.interp(f,r,r)  np.linalg.lstsq(w,r)[0]  np.matvec(k,d)  np.vecmat(d,k)
np.linalg.multi_dot([h,m])  np.linalg.multi_dot([c,e])  np.linalg.multi_dot([a,c])  np.std(f)  np.std(a[:1],axis=0)
np.nanstd(0*a,axis=0)  a[:1].std(0)  np.repeat(a,2,1)  np.roll(a,1,1)  np.expand_dims(a,1)  np.concat([a,b],1)
np.flip(a,1)  np.tril(m,1)  np.permute_dims(h,(1,0,2))  np.linalg.trace(k,offset=1)  np.linalg.diagonal(k,offset=-1)
np.linalg.cross(w,w,axis=-1)  np.squeeze(g,1)  np.squeeze(a)  divmod(a,2.0)[0]  divmod(a,2.0)[1]  divmod(2.0,p)[1]
divmod(p,q)[1]
"""
#: means and covariances of no entries, or of too few
NOTHING = """
np.median(c[:0])  np.median(a[:0],axis=0)  np.nanmedian(a[:,:0],axis=1)  np.median(a[:0],axis=1,keepdims=True)
np.cov(a[:,:0])  np.cov(c[:0])  np.cov(c[:1])  np.cov(a[:,:1])  np.cov(a,ddof=9)  np.cov(c[:0],c[:0])
"""
ERRORS = (ValueError, TypeError, IndexError, ZeroDivisionError, RuntimeError)


@pytest.mark.parametrize("code", present(WRONG))
def test_wrong_arguments_are_refused(code):
    f, xs = split(code, False)
    with pytest.raises(ERRORS):
        f(*xs)
    with pytest.raises(ERRORS):
        nf.vjp(lambda *xs: (f(*xs), sum(np.sum(x) for x in xs))[1], *xs)


@pytest.mark.parametrize("code", present(EDGES))
def test_edges_of_what_numpy_takes(code):
    f, xs = split(code, False)
    value, pullback = nf.vjp(f, *xs)
    close(value, f(*xs), "value", 1e-13)
    assert all(np.all(np.isfinite(g)) for g in pullback(weights(value)))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, and ours
@pytest.mark.parametrize("code", codes(NOTHING))
def test_statistics_of_nothing(code):
    f, xs = split(code, False)
    found, wanted = nf.vjp(f, *xs)[0], f(*xs)
    assert found.shape == np.shape(wanted) and np.array_equal(found, wanted, equal_nan=True)


@pytest.mark.parametrize("code", ["np.std(x)", "x.std()", "np.std(x,ddof=1)", "np.nanstd(x)", "np.std(x,where=x>0)"])
def test_the_deviation_of_equal_entries_has_derivative_zero(code):
    """It has a corner there, as the norm has at 0, and no warning."""
    x = np.full(3, 2.5)
    value, gradient = nf.value_and_grad(lambda x: eval(code, {"np": np, "x": x}))(x)
    assert value == 0 and np.array_equal(gradient, np.zeros(3))
    assert nf.grad(np.std)(np.array(3.5)) == 0
    rows = np.stack([x, np.arange(3.0)])
    gradient = nf.grad(lambda rows: np.sum(np.std(rows, axis=1)))(rows)
    assert np.array_equal(gradient[0], np.zeros(3)) and np.allclose(gradient[1], [-0.40824829, 0, 0.40824829])


def test_divmod_and_format():
    x: Any = np.array([3.5, -1.25])
    value, pullback = nf.vjp(lambda x: sum(divmod(x, 2.0)), x)
    assert np.array_equal(value, sum(divmod(x, 2.0))) and np.array_equal(pullback(np.ones(2))[0], np.ones(2))
    value, pullback = nf.vjp(lambda x: divmod(7.0, x)[1], x)
    assert np.array_equal(value, 7.0 % x) and np.array_equal(pullback(np.ones(2))[0], -(7.0 // x))

    def formatted(x):
        assert f"{x}" == str(x)
        return x * float(f"{x:.3f}")

    with pytest.raises(NoDerivativeError, match="stop_gradient"):
        nf.grad(formatted)(np.array(2.0))
    assert f"{nf.backends.traced(np).asarray(np.array(2.0)):.3f}" == "2.000"
